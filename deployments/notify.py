"""Automations that a Prefect server keeps: messages to people, and lost runs that run again.

Apprise (a dependency of Prefect) knows some hundred services by their addresses, e.g.
`mailto://user:password@example.com`, `slack://...`, `json://127.0.0.1:8000`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tasks.runtime.errors import BadInput

if TYPE_CHECKING:
    from prefect.automations import AutomationCore, EventTrigger
    from prefect.client.orchestration import SyncPrefectClient

TAG = "triage"  # of every deployment of ours, and so of its runs
BLOCK = "triage-notify"
HEARTBEAT_SECONDS = 30  # between the heartbeats of a flow run; Prefect takes 30 or more
LOST_SECONDS = 100  # three missed ones
LOST = f"No heartbeat for {LOST_SECONDS} s: its process is gone, so it runs again."


def check_address(address: str) -> None:
    """Raise BadInput for what Apprise cannot read."""
    from apprise import Apprise

    if not Apprise().add(address):
        raise BadInput(
            "--notify is not an address that Apprise reads; give one as its documentation has "
            "them, e.g. mailto://user:password@example.com or json://127.0.0.1:8000."
        )


def run_lost_runs_again(client: SyncPrefectClient) -> None:
    """Have the server reschedule runs of our deployments whose heartbeats stop, as after a power
    cut: Prefect itself keeps them Running for ever.

    Running one again repeats no finished work, and a training resumes from its checkpoint.
    """
    from prefect.automations import AutomationCore
    from prefect.events.actions import ChangeFlowRunState
    from prefect.server.schemas.states import StateType

    automation = AutomationCore(
        name="triage: a lost run runs again",
        trigger=_lost(),
        actions=[
            ChangeFlowRunState(
                name="AwaitingRetry", state=StateType.SCHEDULED, message=LOST, force=True
            )
        ],
    )
    # Never updated: the server would forget which runs it waits for.
    if not client.read_automations_by_name(automation.name):
        client.create_automation(automation)


def notify_people(client: SyncPrefectClient, address: str) -> None:
    """Have the server send a message where a sweep or a gate fails, and where a run is lost.

    The address, which may hold a password, is kept by the server alone, encrypted. An automation
    that was switched off stays so.
    """
    # Prefect's own block of this kind hands any address to Apprise.
    from prefect.blocks.notifications import SlackWebhook
    from pydantic import SecretStr

    saved: Any = SlackWebhook(url=SecretStr(address)).save(BLOCK, overwrite=True)
    for notice in notices(UUID(str(saved))):
        existing = client.read_automations_by_name(notice.name)
        if existing:
            update = {"enabled": existing[0].enabled}
            client.update_automation(existing[0].id, notice.model_copy(update=update))
        else:
            client.create_automation(notice)


def notices(block: UUID) -> list[AutomationCore]:
    """The automations that send messages through a notification block."""
    from prefect.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.actions import SendNotification

    failed = EventTrigger(
        expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
        match_related={"prefect.resource.role": "flow", "prefect.resource.name": "sweep"},
        posture=Posture.Reactive,
        threshold=1,
    )
    gate_failed = EventTrigger(
        expect={"triage.experiment.gate_failed"}, posture=Posture.Reactive, threshold=1
    )
    why = '{{ event.resource["prefect.state-message"] }}'
    gates = "ED recall {{ event.payload.ed_recall }}; triage gates has the counts."
    name = '{{ event.resource["prefect.resource.name"] }}'
    return [
        AutomationCore(
            name=f"triage: {title}",
            trigger=trigger,
            actions=[
                SendNotification(
                    block_document_id=block, subject=f"triage: {name} {subject}", body=body
                )
            ],
        )
        for title, subject, body, trigger in (
            ("a sweep failed", "failed", why, failed),
            ("a gate failed", "is unsafe by its gates", gates, gate_failed),
            ("a run has lost its heartbeat", "has no heartbeat", LOST, _lost()),
        )
    ]


def _lost() -> EventTrigger:
    """A run of our deployments was taken, and shows no sign of life for LOST_SECONDS."""
    from prefect.automations import EventTrigger, Posture

    signs = {f"prefect.flow-run.{name}" for name in ("Pending", "Running", "heartbeat")}
    ends = ("Completed", "Failed", "Cancelling", "Cancelled", "Crashed", "AwaitingRetry")
    return EventTrigger(
        after=signs,
        expect=signs | {f"prefect.flow-run.{name}" for name in ends},
        match_related=[
            {"prefect.resource.role": "deployment"},
            {"prefect.resource.id": f"prefect.tag.{TAG}"},
        ],
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=LOST_SECONDS),
    )
