"""What is in deploy/: the unit of systemd, the Containerfile, the compose file."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from containerfile import PYTHON, Build, instructions
from processes import MINUTE, ROOT, python
from reverse_proxies import DEPLOY
from servers import free_port

from pymdc.bridge.options import OPTIONS, PREFIX
from pymdc.bridge.settings import (
    DESCRIPTORS_KEPT,
    KEEP_ALIVE_SECONDS,
    MAX_CONNECTIONS,
    NEW_SECONDS,
    STOP_RESERVE,
    Settings,
)

EXPOSURE = 1.5  # of 10, as systemd-analyze counts what a unit may do
PORT = next(option.default for option in OPTIONS if option.name == "port")
VARIABLES = {option.variable for option in OPTIONS} | {
    f"{option.variable}_FILE" for option in OPTIONS if option.secret
}
UNIT = (DEPLOY / "pymdc-bridge.service").read_text(encoding="utf-8")
BACKUP_UNIT = (DEPLOY / "pymdc-bridge-backup.service").read_text(encoding="utf-8")
CONTAINERFILE = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "running-a-bridge.rst").read_text(encoding="utf-8")
UNIT_GUIDE, CONTAINER_GUIDE = GUIDE.split("A bridge in containers\n")
SEVERAL_GUIDE = (ROOT / "docs" / "several-bridges.rst").read_text(encoding="utf-8")
ONE, SEVERAL = (
    yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    for name in ("compose-one.yaml", "compose.yaml")
)
NGINX = (DEPLOY / "nginx-bridges.conf").read_text(encoding="utf-8")


def listed(value: str | list[str]) -> list[str]:
    """Return a value of a compose file that may be one text or several."""
    return [value] if isinstance(value, str) else value


def unit_values(name: str) -> list[str]:
    """Return what the unit sets *name* to, in order."""
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Give the units, with the Python of this process."""
    [command] = unit_values("ExecStart")
    for unit in (*DEPLOY.glob("*.service"), *DEPLOY.glob("*.timer")):
        text = unit.read_text(encoding="utf-8").replace(command.split()[0], str(PYTHON))
        (tmp_path / unit.name).write_text(text)
    return sorted(tmp_path.iterdir())


def systemd_analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=MINUTE, check=False
    )


def test_units_are_understood_by_systemd(units: list[Path]) -> None:
    done = systemd_analyze("verify", *units)
    # What is wrong with other units of this machine is told as well.
    assert [line for line in done.stderr.splitlines() if "pymdc" in line] == []
    assert done.returncode == 0


def test_services_may_do_little(units: list[Path]) -> None:
    services = [unit for unit in units if unit.suffix == ".service"]
    threshold = f"--threshold={round(10 * EXPOSURE)}"
    done = systemd_analyze("security", "--offline=yes", threshold, *services)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze is older than 250")
    assert (done.returncode, len(services)) == (0, 2), done.stdout


def test_unit_gives_the_bridge_time_and_descriptors() -> None:
    assert float(unit_values("TimeoutStopSec")[0]) > Settings.grace + STOP_RESERVE
    assert int(unit_values("LimitNOFILE")[0]) >= MAX_CONNECTIONS + DESCRIPTORS_KEPT


def test_unit_starts_no_bridge_again_that_has_a_wrong_option(tmp_path: Path) -> None:
    [status] = unit_values("RestartPreventExitStatus")
    variables = {f"{PREFIX}PATIENCE": "long"}
    done = python("-m", "pymdc.bridge", "--data", tmp_path, env=variables)
    assert (done.returncode, done.stdout) == (int(status), "")


def test_variables_of_the_files_are_known() -> None:
    env = (DEPLOY / "bridge.env").read_text(encoding="utf-8")
    service = ONE["services"]["bridge"]
    named = {
        *re.findall(r"^#?(\w+)=", env, re.MULTILINE),
        *(name for name in service["environment"]),
        *(value.partition("=")[0] for value in unit_values("Environment")),
        *(name for name in re.findall(rf"{PREFIX}\w+", CONTAINERFILE)),
    }
    assert named <= VARIABLES
    assert f"\n{PREFIX}URL=" in env
    assert f"\n{PREFIX}TRUSTED_PROXIES=" in env


def test_compose_file_of_one_bridge_refers_to_what_there_is() -> None:
    services, build = ONE["services"], ONE["services"]["bridge"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Containerfile")
    mounts = [volume.split(":")[0] for one in services.values() for volume in one["volumes"]]
    assert {name for name in mounts if "/" not in name} == {*ONE["volumes"]}
    assert all((DEPLOY / name).is_file() for name in mounts if name.startswith("."))
    # The others are made by commands of the guide.
    made = [name for name in mounts if name.startswith("/")]
    made += [one["env_file"] for one in services.values()]
    made += [secret["file"] for secret in ONE["secrets"].values()]
    assert [name for name in made if not re.search(rf" {name}$", CONTAINER_GUIDE, re.M)] == []
    assert {*services["bridge"]["secrets"]} == {*ONE["secrets"]}
    assert {*services["caddy"]["depends_on"]} <= {*services}


def test_compose_file_puts_caddy_before_the_bridge() -> None:
    bridge, caddy = (ONE["services"][name] for name in ("bridge", "caddy"))
    exposed = dict(instructions(CONTAINERFILE))["EXPOSE"]
    assert exposed == PORT
    assert caddy["environment"]["BRIDGE"] == f"bridge:{exposed}"
    assert "ports" not in bridge
    named = {*re.findall(r"{\$(\w+)", (DEPLOY / "Caddyfile").read_text(encoding="utf-8"))}
    assert named == {*caddy["environment"], f"{PREFIX}URL"}
    assert caddy["env_file"] == bridge["env_file"]
    [network] = ONE["networks"]["default"]["ipam"]["config"]
    assert bridge["environment"][f"{PREFIX}TRUSTED_PROXIES"] == network["subnet"]


def test_compose_file_gives_the_bridge_time_and_descriptors() -> None:
    bridge = ONE["services"]["bridge"]
    assert float(bridge["stop_grace_period"].rstrip("s")) > Settings.grace + STOP_RESERVE
    assert bridge["ulimits"]["nofile"] >= MAX_CONNECTIONS + DESCRIPTORS_KEPT


def test_compose_file_refers_to_what_there_is() -> None:
    services = SEVERAL["services"]
    build = services["bridge-1"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Containerfile")
    mounts = [
        volume.split(":")[0] for one in services.values() for volume in one.get("volumes", [])
    ]
    volumes = [name for name in mounts if "/" not in name]
    assert sorted(volumes) == sorted(SEVERAL["volumes"]), "each has one of its own"
    assert all((DEPLOY / name).is_file() for name in mounts if name.startswith("."))
    made = [name for name in mounts if name.startswith("/")]
    made += [file for one in services.values() for file in listed(one.get("env_file", []))]
    made += [secret["file"] for secret in SEVERAL["secrets"].values()]
    assert [name for name in made if not re.search(rf"[ >`]{name}\b", SEVERAL_GUIDE)] == []
    for one in services.values():
        assert {*one.get("secrets", [])} <= {*SEVERAL["secrets"]}
        assert {*one.get("networks", [])} <= {*SEVERAL["networks"]}
        assert {*one.get("depends_on", [])} <= {*services}


def test_variables_of_the_compose_file_are_known() -> None:
    named = {*SEVERAL["services"]["bridge-1"]["environment"]}
    assert {name for name in named if name.startswith(PREFIX)} <= VARIABLES
    store = re.findall(r"^(\w+)=", (DEPLOY / "store.env").read_text(encoding="utf-8"), re.M)
    keys = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert {*store} == keys
    assert {name for name in named if name.startswith("AWS_")} == {
        "AWS_ENDPOINT_URL_S3",
        "AWS_UNSIGNED_PAYLOAD",
        "AWS_REGION",
    }


def test_services_find_each_other() -> None:
    services = SEVERAL["services"]
    environment = services["bridge-1"]["environment"]
    for name in "DATABASE", "SMTP":
        assert urlsplit(environment[f"{PREFIX}{name}"]).hostname in services
    database, postgres = urlsplit(environment[f"{PREFIX}DATABASE"]), services["postgres"]
    assert database.username == postgres["environment"]["POSTGRES_USER"]
    assert database.path == f"/{postgres['environment']['POSTGRES_DB']}"
    secret = "POSTGRES_PASSWORD_FILE"
    assert environment[f"{PREFIX}DATABASE_PASSWORD_FILE"] == postgres["environment"][secret]
    assert urlsplit(environment["AWS_ENDPOINT_URL_S3"]).hostname == "seaweedfs"
    assert "-ip=seaweedfs" in services["seaweedfs"]["command"]
    addresses = {
        name: one["networks"]["front"]["ipv4_address"]
        for name, one in services.items()
        if isinstance(one["networks"], dict)
    }
    assert environment[f"{PREFIX}TRUSTED_PROXIES"] == addresses.pop("nginx")
    assert sorted(re.findall(r"server (172\.\S+):6382 ", NGINX)) == sorted(addresses.values())
    [network] = SEVERAL["networks"]["front"]["ipam"]["config"]
    subnet = ip_network(network["subnet"])
    assert all(ip_address(address) in subnet for address in addresses.values())


def test_only_nginx_can_be_reached() -> None:
    services = SEVERAL["services"]
    assert [name for name, one in services.items() if "ports" in one] == ["nginx"]
    assert services["nginx"]["ports"] == ["80:80", "443:443"]
    inside = {"postgres", "seaweedfs"}
    assert all(services[name]["networks"] == ["back"] for name in inside)
    assert SEVERAL["networks"]["back"]["internal"] is True


def test_images_have_a_version() -> None:
    images = [one["image"] for one in SEVERAL["services"].values() if "build" not in one]
    assert len(images) == 5
    assert [image for image in images if not re.search(r":[0-9.]+$", image)] == []


def test_bridges_have_time_to_drain() -> None:
    bridge = SEVERAL["services"]["bridge-1"]
    drain, grace = (float(bridge["environment"][PREFIX + name]) for name in ("DRAIN", "GRACE"))
    assert float(bridge["stop_grace_period"].rstrip("s")) > drain + grace + STOP_RESERVE
    [kept] = re.findall(r"keepalive_timeout +(\d+)s;", NGINX)
    assert int(kept) < min(drain, NEW_SECONDS)
    assert int(kept) < KEEP_ALIVE_SECONDS
    assert bridge["ulimits"]["nofile"] >= MAX_CONNECTIONS + DESCRIPTORS_KEPT
    [silent] = re.findall(r"proxy_timeout +(\d+)s;", NGINX)
    others = re.findall(r"proxy_read_timeout +(\d+)s;", NGINX)
    assert int(silent) > max(map(int, others))


def test_guide_makes_what_the_unit_needs() -> None:
    [folder] = unit_values("StateDirectory")
    assert f" --data /var/lib/{folder}'" in UNIT_GUIDE
    assert f" {unit_values('User')[0]}\n" in UNIT_GUIDE
    paths = [unit_values("EnvironmentFile")[0]]
    paths += [value.partition(":")[2] for value in unit_values("LoadCredential")]
    paths += re.findall(r"^ExecStart=.*/bin/python .* (/.*)$", BACKUP_UNIT, re.MULTILINE)
    assert [path for path in paths if not re.search(rf"[ >]{path}'?$", UNIT_GUIDE, re.M)] == []
    [command] = unit_values("ExecStart")
    assert f"python3 -m venv {Path(command.split()[0]).parents[1]}\n" in UNIT_GUIDE


def test_files_that_the_guide_names_are_there() -> None:
    named = re.findall(r"\b(?:deploy|docs|examples)/[\w.*-]+", GUIDE + SEVERAL_GUIDE)
    assert [name for name in named if not [*ROOT.glob(name)]] == []


def test_containerfile_copies_what_git_has() -> None:
    copied = [
        source
        for name, value in instructions(CONTAINERFILE)
        if name == "COPY" and not value.startswith("--from")
        for source in shlex.split(value)[:-1]
    ]
    assert all((ROOT / source).exists() for source in copied)
    assert "pymdc" in copied


SERVE = """
mkfifo {folder}/out
{entrypoint} >{folder}/out &
exec 3<{folder}/out
read -r line <&3 && echo "$line"
stat -c %a:%u {root}/data/metadata.sqlite
{health} >&2 && echo healthy
kill $!
wait $! && echo ended
{health} 2>{folder}/error || echo not healthy
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can build a container by hand")
@pytest.mark.skipif(
    os.environ.get("PIP_NO_INDEX") is not None, reason="the container installs from an index"
)
def test_container_is_built_and_serves(tmp_path: Path) -> None:
    image = "python:{}.{}-slim".format(*sys.version_info)
    if image not in CONTAINERFILE:  # it takes 10 s, so once is enough
        pytest.skip(f"the container is not built from {image}")
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*apart, "true"], check=False).returncode:
        pytest.skip("there is no mount namespace to be had here")
    port, folder = str(free_port()), tmp_path / "container"
    build = Build(CONTAINERFILE, ROOT, folder)
    last = build.last
    serve = SERVE.format(
        folder=folder,
        root=last.root,
        entrypoint=last.command(last.entrypoint, PYMDC_BRIDGE_PORT=port),
        health=last.command([part.replace(PORT, port) for part in last.health]),
    )
    lines = [
        "set -eu",
        f"mkdir {folder}",
        f"mount -t tmpfs none {folder}",
        *(line for stage in build.stages for line in stage.script),
        f"mount -t tmpfs none {last.root}/tmp",
        f"mount -o remount,ro {last.root}",  # as compose.yaml has it
        serve,
    ]
    done = subprocess.run(
        [*apart, "bash", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        timeout=3 * MINUTE,
        check=False,
    )
    first = f"Files in /data. Open http://0.0.0.0:{port}/"
    shown = [first, "600:6382", "healthy", "ended", "not healthy"]
    assert done.stdout.splitlines() == shown, done.stderr
