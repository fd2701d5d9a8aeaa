"""Messages to people: a notification block of an Apprise address, and the automations that use it.

Apprise (a dependency of Prefect) knows some hundred services by their addresses, e.g.
`mailto://user:password@example.com`, `slack://...`, `json://127.0.0.1:8000`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from deployments.prefect_api import prefect_client
from tasks.runtime.errors import BadInput

if TYPE_CHECKING:
    from prefect.automations import EventTrigger

BLOCK = "triage-notify"
HEARTBEAT_SECONDS = 30  # between the heartbeats of a flow run; Prefect takes 30 or more
LOST_SECONDS = 100  # three missed ones
RETRIES = 5  # a server that has just started is busy
ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


@dataclass(frozen=True)
class Notice:
    """An automation that sends a message: its name, and templates of the message's two parts.

    `event` holds the fields of its trigger.
    """

    name: str
    subject: str
    body: str
    event: dict[str, Any]

    def trigger(self) -> EventTrigger:
        from prefect.automations import EventTrigger

        return EventTrigger(**self.event)


_SWEEPS = {"prefect.resource.role": "flow", "prefect.resource.name": "sweep"}
_RUN_NAME = '{{ event.resource["prefect.resource.name"] }}'
NOTICES = (
    Notice(
        "triage: a sweep failed",
        f"triage: {_RUN_NAME} failed",
        '{{ event.resource["prefect.state-message"] }}',
        {
            "expect": {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            "match_related": _SWEEPS,
            "posture": "Reactive",
            "threshold": 1,
        },
    ),
    Notice(
        "triage: a gate failed",
        f"triage: {_RUN_NAME} is unsafe by its gates",
        "ED recall {{ event.payload.ed_recall }}; triage gates has the counts.",
        {"expect": {"triage.experiment.gate_failed"}, "posture": "Reactive", "threshold": 1},
    ),
    Notice(
        "triage: a run has lost its heartbeat",
        f"triage: no heartbeat of {_RUN_NAME}",
        "Its process is gone or its machine cannot be reached; `triage up` there queues it again.",
        {
            "after": {"prefect.flow-run.heartbeat"},
            "expect": {
                "prefect.flow-run.heartbeat",
                *(f"prefect.flow-run.{state}" for state in ENDS),
            },
            "for_each": {"prefect.resource.id"},
            "posture": "Proactive",
            "threshold": 1,
            "within": timedelta(seconds=LOST_SECONDS),
        },
    ),
)


def check_address(address: str) -> None:
    """Raise BadInput for what Apprise cannot read."""
    from apprise import Apprise

    if not Apprise().add(address):
        raise BadInput(
            "--notify is not an address that Apprise reads; give one as its documentation has "
            "them, e.g. mailto://user:password@example.com or json://127.0.0.1:8000."
        )


def notify_people(api: str, address: str) -> None:
    """Have the server at `api` send a message for each of NOTICES; raises NoAnswer.

    The address, which may hold a password, is kept by the server alone, encrypted.
    """
    with prefect_client(api, retries=RETRIES):
        block = _save_block(address)
        for notice in NOTICES:
            _save_automation(notice, block)


def _save_block(address: str) -> UUID:
    # Prefect's own block of this kind hands any address to Apprise.
    from prefect.blocks.notifications import SlackWebhook
    from pydantic import SecretStr

    block = SlackWebhook(url=SecretStr(address))
    saved: Any = block.save(BLOCK, overwrite=True)
    return UUID(str(saved))


def _save_automation(notice: Notice, block: UUID) -> None:
    """Create an automation, or update the one of this name; one that was switched off stays so."""
    from prefect.automations import AutomationCore
    from prefect.client.orchestration import get_client
    from prefect.events.actions import SendNotification

    action = SendNotification(block_document_id=block, subject=notice.subject, body=notice.body)
    automation = AutomationCore(name=notice.name, trigger=notice.trigger(), actions=[action])

    with get_client(sync_client=True) as client:
        existing = client.read_automations_by_name(notice.name)
        if not existing:
            client.create_automation(automation)
            return
        client.update_automation(
            existing[0].id, automation.model_copy(update={"enabled": existing[0].enabled})
        )
