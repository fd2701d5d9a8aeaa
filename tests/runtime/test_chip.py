"""A machine is named by its processor, on which the last bits of a result depend."""

from __future__ import annotations

import platform
import subprocess

import pytest

from tasks.runtime import chip as chips

GUEST = "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n"


@pytest.fixture
def cpu_info(tmp_path, monkeypatch):
    """A file in the place of /proc/cpuinfo, on Linux."""
    monkeypatch.setattr(chips, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(chips, "is_mac", lambda: False)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    chips.chip.cache_clear()
    yield tmp_path / "cpuinfo"
    chips.chip.cache_clear()


def test_a_virtual_machine_is_told_from_others_by_family_and_model(cpu_info):
    cpu_info.write_text(GUEST + GUEST.replace("26", "99"))
    assert chips.machine_name() == "Linux x86_64, AMD EPYC, family 26, model 2", "of the first processor"


@pytest.mark.parametrize("text", [None, "", "processor\t: 0\nBogoMIPS\t: 50.00\n"])
def test_a_processor_without_a_name_is_named_by_its_kind_once(cpu_info, text):
    if text is not None:
        cpu_info.write_text(text)
    assert chips.machine_name() == "Linux x86_64"


def test_a_mac_is_named_by_its_chip(cpu_info, monkeypatch):
    def answer(command, **_):
        assert command == ("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string")
        return subprocess.CompletedProcess(command, 0, "Apple M2 Pro\n")

    monkeypatch.setattr(chips, "is_mac", lambda: True)
    monkeypatch.setattr(chips.subprocess, "run", answer)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert chips.machine_name() == "Darwin arm64, Apple M2 Pro"


def test_a_mac_whose_system_does_not_say_is_named_by_its_kind(cpu_info, monkeypatch):
    def no_program(command, **_):
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(chips, "is_mac", lambda: True)
    monkeypatch.setattr(chips.subprocess, "run", no_program)
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert chips.chip() == "arm64"
