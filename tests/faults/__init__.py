"""Faults that the project survives: killed processes, full disks, jumping clocks."""
