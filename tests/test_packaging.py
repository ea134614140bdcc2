"""The wheel holds what the package needs, and nothing of ours leaks beside it."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOAD_PRESETS = """
from evomerge.config.presets import PRESET_KINDS, Presets
from evomerge.models.zoo import ZOO_NAMES, zoo_path
from evomerge.schema import read_yaml
presets = Presets()
names = {kind: sorted(presets.names(kind)) for kind in PRESET_KINDS}
for kind in PRESET_KINDS:
    for file in presets.names(kind).values():
        read_yaml(file)
for name in ZOO_NAMES:
    assert (zoo_path(name) / "model.safetensors").is_file(), name
import evomerge
print(evomerge.__file__)
print(names)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_only_top_level_name_is_ours(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"evomerge"}


def test_presets_and_models_load_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    """The environment holds only the wheel; third-party libraries come from this one."""
    from evomerge.config.presets import PRESET_KINDS, Presets

    venv.create(tmp_path / "env", with_pip=False)
    site = next((tmp_path / "env").rglob("site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    ours = next(p for p in sys.path if p.endswith("site-packages"))
    # Appended, so that it comes last and its editable install of ours is never reached.
    (site / "libraries.pth").write_text(f"import sys; sys.path.append({ours!r})\n")
    python = tmp_path / "env" / "bin" / "python"
    done = subprocess.run(
        [str(python), "-c", LOAD_PRESETS], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    location, names = done.stdout.strip().splitlines()
    assert location.startswith(str(site))
    assert names == str({kind: sorted(Presets().names(kind)) for kind in PRESET_KINDS})
