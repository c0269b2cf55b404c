"""What a kernel shows on machines which are not here, in its real places, and the programs that they have."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

HWMON = "sys/class/hwmon"
INA = "sys/bus/i2c/drivers/ina3221"
THERMAL = "sys/class/thermal"


def write(root: Path, files: Mapping[str, object]) -> Path:
    """The tree of these files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def linked(root: Path) -> Path:
    """The same tree, where what lies in a class is a link to a device, as a kernel shows it."""
    for entry in sorted((root / "sys/class").glob("*/*")):
        device = root / "sys/devices/virtual" / entry.parent.name / entry.name
        device.parent.mkdir(parents=True, exist_ok=True)
        entry.rename(device)
        entry.symlink_to(device)
    return root


def program(root: Path, name: str, text: str) -> None:
    """A program of the machine, a shell script."""
    path = root / "usr/bin" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def ina3221(address: str, rails: Mapping[int, tuple[str, int, int]]) -> dict[str, object]:
    """A sensor's channels: label, mV and mA of each, and the sum of the shunts' voltages, which is no power."""
    place = f"{INA}/1-00{address}/hwmon/hwmon{address}"
    files: dict[str, object] = {f"{place}/name": "ina3221"}
    for channel, (label, millivolts, milliamperes) in rails.items():
        files |= {f"{place}/in{channel}_label": label}
        files |= {f"{place}/in{channel}_input": millivolts, f"{place}/curr{channel}_input": milliamperes}
    return {**files, f"{place}/in7_label": "sum of shunt voltages", f"{place}/in7_input": 9160}


def zones(thousandths: Mapping[str, object]) -> dict[str, object]:
    """Thermal zones in this order."""
    files: dict[str, object] = {}
    for number, (kind, value) in enumerate(thousandths.items()):
        files |= {f"{THERMAL}/thermal_zone{number}/type": kind, f"{THERMAL}/thermal_zone{number}/temp": value}
    return files


def soctherm(events: Mapping[str, int]) -> dict[str, object]:
    return {f"{HWMON}/hwmon3/name": "soctherm_oc", **{f"{HWMON}/hwmon3/{e}_event_cnt": n for e, n in events.items()}}


def cpus(count: int, khz: int, most: int) -> dict[str, object]:
    files: dict[str, object] = {}
    for cpu in range(count):
        place = f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
        files |= {f"{place}/scaling_cur_freq": khz, f"{place}/scaling_max_freq": most}
    return files


def orin_nano(root: Path, milliamperes: int = 1000, degrees: float = 45.9) -> Path:
    """JetPack 6: one INA3221, of which the first rail is the whole module."""
    rails = {1: ("VDD_IN", 5000, milliamperes), 2: ("VDD_CPU_GPU_CV", 5000, 143), 3: ("VDD_SOC", 5000, 358)}
    heat = {"cpu-thermal": 44156, "gpu-thermal": 45968, "cv0-thermal": "", "tj-thermal": round(degrees * 1000)}
    return write(
        root,
        {
            **ina3221("40", rails),
            **zones(heat),
            **soctherm({"oc1": 0, "oc2": 0, "oc3": 7}),
            **cpus(6, 729600, 1510400),
            "sys/class/devfreq/17000000.gpu/cur_freq": 306000000,
            "sys/class/devfreq/17000000.gpu/max_freq": 624750000,
            "sys/class/devfreq/15480000.nvdec/cur_freq": 1,
            f"{THERMAL}/cooling_device0/type": "pwm-fan",
            f"{THERMAL}/cooling_device0/cur_state": 2,
            f"{THERMAL}/cooling_device1/type": "gpu-throttle-alert",
            f"{THERMAL}/cooling_device1/cur_state": 0,
        },
    )


def agx_orin(root: Path) -> Path:
    """Two INA3221: three rails that together are the module, one behind them, and one that is not connected."""
    first = {1: ("VDD_GPU_SOC", 19000, 300), 2: ("VDD_CPU_CV", 19000, 100), 3: ("VIN_SYS_5V0", 5000, 1100)}
    second = {2: ("NC", 0, 0), 3: ("VDDQ_VDD2_1V8AO", 5000, 200)}
    heat = {"cpu-thermal": 52968, "tj-thermal": 53000}
    return write(root, {**ina3221("40", first), **ina3221("41", second), **zones(heat), **soctherm({"oc3": 0})})


def raspberry_pi_5(root: Path, throttled: str = "0") -> Path:
    """No rail; an alarm for its voltage, and the firmware's bits."""
    return write(
        root,
        {
            **zones({"cpu-thermal": 61000}),
            **cpus(4, 2400000, 2400000),
            f"{HWMON}/hwmon1/name": "rpi_volt",
            f"{HWMON}/hwmon1/in0_lcrit_alarm": 0,
            "sys/devices/platform/soc/soc:firmware/get_throttled": throttled,
            f"{THERMAL}/cooling_device0/type": "pwm-fan",
            f"{THERMAL}/cooling_device0/cur_state": 1,
        },
    )


def x86(root: Path, microjoules: int = 262_143_000_000) -> Path:
    """RAPL: a package with its cores, the same once more by memory-mapped registers, and counts of heat."""
    powercap = "sys/class/powercap"
    return write(
        root,
        {
            f"{powercap}/intel-rapl:0/name": "package-0",
            f"{powercap}/intel-rapl:0/energy_uj": microjoules,
            f"{powercap}/intel-rapl:0/max_energy_range_uj": 262_143_328_850,
            f"{powercap}/intel-rapl:0:0/name": "core",
            f"{powercap}/intel-rapl:0:0/energy_uj": 5,
            f"{powercap}/intel-rapl-mmio:0/name": "package-0",
            f"{powercap}/intel-rapl-mmio:0/energy_uj": 5,
            **zones({"acpitz": 27800, "x86_pkg_temp": 41000}),
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": 3,
            "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": 4,
            "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": 1,
            f"{THERMAL}/cooling_device0/type": "Processor",
            f"{THERMAL}/cooling_device0/cur_state": 0,
            f"{THERMAL}/cooling_device1/type": "intel_powerclamp",
            f"{THERMAL}/cooling_device1/cur_state": -1,
        },
    )


NVPMODEL = """
case "$1" in
-q) echo "NV Power Mode: $(cat {root}/mode)"; echo 1 ;;
-p) echo "POWER_MODEL: ID=0 NAME=15W"; echo "POWER_MODEL: ID=2 NAME=MAXN_SUPER"; echo "PM_CONFIG: DEFAULT=15W(0)" ;;
-m) test "$2" = 2 && echo MAXN_SUPER > {root}/mode; test "$2" = 0 && echo 15W > {root}/mode; true ;;
esac
"""


def nvpmodel(root: Path, sudo: str = 'test "$1" = -n && shift && exec "$@"') -> None:
    """A machine that is in the mode 15W, and sets another for who may."""
    (root / "mode").write_text("15W")
    program(root, "nvpmodel", NVPMODEL.replace("{root}", str(root)))
    program(root, "sudo", sudo)
