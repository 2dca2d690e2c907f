"""Does what we ship work elsewhere? The wheel, the constraints, the container files."""

import os
import re
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import httpx
import pytest
import yaml

from app.web.vendor import SERVED

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_constraints_pin_every_direct_dependency() -> None:
    project = PYPROJECT["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    names = {normal(re.split(r"[\[<>=!~ ]", line, maxsplit=1)[0]) for line in wanted}
    pinned = {
        normal(line.split("==")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    assert names <= pinned, names - pinned


def test_javascript_is_pinned_and_locked() -> None:
    import json

    package = json.loads((ROOT / "package.json").read_text())
    locked = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    wanted = {**package.get("dependencies", {}), **package.get("devDependencies", {})}
    for name, version in wanted.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), f"{name} is not pinned: {version}"
        assert locked[f"node_modules/{name}"]["version"] == version


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prefloop installed from its wheel, far from the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT], check=True, cwd=folder
    )
    (wheel,) = folder.glob("prefloop-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True, cwd=folder)
    return folder / "site"


def test_wheel_holds_every_file_of_others_that_is_served(installed: Path) -> None:
    for pattern, folder in SERVED:
        wanted = {path.name for path in (ROOT / "node_modules").glob(pattern)}
        assert wanted, f"{pattern} matches nothing"
        held = {path.name for path in (installed / "app/resources/static/vendor" / folder).iterdir()}
        assert wanted <= held


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_wheel_serves_from_an_empty_folder(installed: Path, database_url: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    where = subprocess.run(
        [sys.executable, "-c", "import app, demo, worker; print(app.__file__, demo.__file__, worker.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(path.startswith(str(installed)) for path in where.stdout.split()), where.stdout
    assert (installed / "demo" / "model" / "config.json").exists()
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "app.commands", "serve", "--port", str(port)], cwd=tmp_path, env=environment
    )
    try:
        page = eventually(f"http://127.0.0.1:{port}/sign-in", server)
        assert page.status_code == 200
        chinese = httpx.get(f"http://127.0.0.1:{port}/sign-in", headers={"Accept-Language": "zh-CN"})
        assert "登录" in chinese.text
        assets = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
        assert any("vendor" in asset for asset in assets), assets
        for asset in assets:
            assert httpx.get(f"http://127.0.0.1:{port}{asset}").status_code == 200, asset
    finally:
        server.terminate()
        server.wait(10)


def eventually(url: str, process: subprocess.Popen[bytes], seconds: float = 60) -> httpx.Response:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            return httpx.get(url)
        except httpx.ConnectError:
            time.sleep(0.2)
    raise TimeoutError(url)


COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_compose_has_no_default_password() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert re.findall(r"PASSWORD:-", text) == []
    assert "POSTGRES_PASSWORD:?" in text


def test_compose_services_are_healthy_and_keep_their_data() -> None:
    services = COMPOSE["services"]
    assert {"postgres", "web", "worker", "worker-gpu"} == set(services)
    assert services["worker-gpu"]["profiles"] == ["gpu"]
    for name, service in services.items():
        assert "healthcheck" in service, name
        for volume in service["volumes"]:
            assert volume.split(":")[0] in COMPOSE["volumes"], volume


def test_containers_call_commands_that_exist() -> None:
    """Every `prefloop ...` in the container files parses here, options included."""
    files = (ROOT / "docker-compose.yml").read_text() + (ROOT / "Dockerfile").read_text()
    lines = [
        re.sub(r'[",\[\]\s]+', " ", line) for line in files.splitlines() if re.match(r"CMD|\s+(command|test):|#", line)
    ]
    calls = [call.split() for line in lines for call in re.findall(r"prefloop ([a-z]+[^&]*)", line)]
    assert {call[0] for call in calls} >= {"serve", "worker", "migrate", "user"}
    for command, *rest in calls:
        helped = subprocess.run(
            [sys.executable, "-m", "app.commands", command, *[word for word in rest[:1] if word.isalpha()], "--help"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert helped.returncode == 0, (command, rest, helped.stderr)
        for option in (word for word in rest if word.startswith("--")):
            assert option in helped.stdout, (command, option)
