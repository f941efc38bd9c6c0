"""Files of a hub: fetched, gone on with, checked, kept, used without a network, and let go of."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import foundry
import pytest
from foundry import ModelFormatError, hub
from foundry.cli import main
from foundry.hub import places, repository
from played_hub import REVISION, Hub

constants = pytest.importorskip("huggingface_hub.constants")

KIB = 1 << 10


def content(name: str, size: int = 300 * KIB) -> bytes:
    return random.Random(name).randbytes(size)


PARTS = [f"split/m-Q8_0-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
FILES = {name: content(name) for name in ("m-Q4_K_M.gguf", "m-Q6_K.gguf", *PARTS)} | {"README.md": b"# m"}


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with one repository, and a cache with nothing in it. It reads in pieces of 16 KiB, and does not wait."""
    server = Hub({"owner/m-GGUF": dict(FILES)})
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr("huggingface_hub.file_download.DOWNLOAD_CHUNK_SIZE", 16 * KIB, raising=False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 16 * KIB)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "theirs"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr(places, "user_cache_dir", lambda name: str(tmp_path / name))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.close()


def held() -> set[str]:
    """All files of the cache but its lock."""
    folder = places.models_dir()
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_a_file_by_its_format(played: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[int, int]] = []
    path = foundry.pull("owner/m-GGUF:q6_k", lambda done, of: told.append((done, of)))
    assert path.read_bytes() == FILES["m-Q6_K.gguf"] and path.name == "m-Q6_K.gguf"
    assert told[-1] == (300 * KIB, 300 * KIB) and played.asked == [("m-Q6_K.gguf", "")]
    assert path.with_name("m-Q6_K.gguf.sha256").read_text() == (
        f"{hashlib.sha256(FILES['m-Q6_K.gguf']).hexdigest()}  m-Q6_K.gguf\n"
    )
    assert foundry.pull("owner/m-GGUF:Q6_K") == path and played.listings == 1  # what is here is not asked for
    assert foundry.pull("owner/m-GGUF").name == "m-Q4_K_M.gguf"  # the best
    assert main(["pull", "owner/m-GGUF:Q6_K"]) == 0  # asks, and fetches nothing again
    assert capsys.readouterr().out == f"{path}\n"
    assert played.asked == [("m-Q6_K.gguf", ""), ("m-Q4_K_M.gguf", "")]


def test_all_parts_of_a_split_model(played: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[int, int]] = []
    first = foundry.pull("owner/m-GGUF:Q8_0", lambda done, of: told.append((done, of)))
    assert [first.with_name(Path(name).name).read_bytes() for name in PARTS] == [FILES[name] for name in PARTS]
    assert first.name == Path(PARTS[0]).name and first.parent.name == "split"
    assert told == sorted(told) and told[-1] == (900 * KIB, 900 * KIB)
    assert [one for one, _ in told].count(900 * KIB) == 1  # the end of a part is not told as the end of all
    second = first.with_name(Path(PARTS[1]).name)
    second.unlink()
    assert foundry.pull("owner/m-GGUF:Q8_0") == first and second.read_bytes() == FILES[PARTS[1]]
    assert [name for name, _ in played.asked] == [*PARTS, PARTS[1]]
    assert main(["pull", "owner/m-GGUF:Q8_0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(first), "bytes": 900 * KIB}


def test_a_cut_connection_goes_on(played: Hub) -> None:
    played.cuts = [100 * KIB, 80 * KIB]
    path = foundry.pull("owner/m-GGUF:Q6_K")
    assert path.read_bytes() == FILES["m-Q6_K.gguf"]
    begins = [int(asked.removeprefix("bytes=").rstrip("-") or 0) for _, asked in played.asked]
    assert begins[0] == 0 < begins[1] < begins[2] and len(begins) == 3


def test_a_fetch_that_failed_is_gone_on_with_later(played: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    played.cuts = [100 * KIB, *[0] * 20]
    assert main(["pull", "owner/m-GGUF:Q6_K"]) == 1
    assert capsys.readouterr().err.startswith("foundry: owner/m-GGUF: ")
    (unfinished,) = hub.kept_models()
    assert unfinished.name == "owner/m-GGUF:m-Q6_K.gguf" and unfinished.unfinished
    assert 80 * KIB <= unfinished.bytes <= 100 * KIB
    played.cuts, played.asked = [], []
    path = foundry.pull("owner/m-GGUF:Q6_K")
    assert played.asked == [("m-Q6_K.gguf", f"bytes={unfinished.bytes}-")]
    assert path.read_bytes() == FILES["m-Q6_K.gguf"] and len(held()) == 2


def in_a_process(played: Hub, tmp_path: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs ``code``, which reads a hub in pieces of 16 KiB: it knows the hub and its cache as users' settings have
    them."""
    code = "import os, sys, foundry, huggingface_hub.constants as c; c.DOWNLOAD_CHUNK_SIZE = 16384\n" + code
    environment = os.environ | {"HF_ENDPOINT": played.url, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "c")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, timeout=60
    )


def test_a_fetch_that_was_killed_is_gone_on_with(played: Hub, tmp_path: Path) -> None:
    """By another process, which the settings of users reach: HF_ENDPOINT, and the cache in HOME."""
    code = (
        "def told(done, of):\n  if done and 'kill' in sys.argv: os._exit(9)\n"
        "print(foundry.pull('owner/m-GGUF:Q6_K', told))"
    )
    played.cuts, played.stalls = [200 * KIB], True
    killed = in_a_process(played, tmp_path, code, "kill")
    assert killed.returncode == 9, killed.stderr
    (part,) = tmp_path.rglob(".*.part")
    gathered = part.stat().st_size
    assert 0 < gathered <= 200 * KIB
    done = in_a_process(played, tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == FILES["m-Q6_K.gguf"]
    assert [asked for _, asked in played.asked] == ["", f"bytes={gathered}-"]


def test_a_file_that_is_not_what_was_promised_is_not_kept(played: Hub) -> None:
    played.promised["m-Q6_K.gguf"] = "0" * 64
    with pytest.raises(ModelFormatError, match=r"m-Q6_K\.gguf: expected sha256 0{64}, found [0-9a-f]{64}; nothing is"):
        foundry.pull("owner/m-GGUF:Q6_K")
    assert held() == set()
    played.promised.clear()
    assert foundry.pull("owner/m-GGUF:Q6_K").read_bytes() == FILES["m-Q6_K.gguf"]


def test_small_files_are_checked_by_gits_own_sum(played: Hub) -> None:
    played.small = {"m-Q6_K.gguf"}
    assert foundry.pull("owner/m-GGUF:Q6_K").read_bytes() == FILES["m-Q6_K.gguf"]
    hub.remove("owner/m-GGUF")
    played.garbled = True
    with pytest.raises(ModelFormatError, match=r"expected git id [0-9a-f]{40}, found"):
        foundry.pull("owner/m-GGUF:Q6_K")


def test_pull_mends_and_brings_up_to_date(played: Hub) -> None:
    path = foundry.pull("owner/m-GGUF:Q6_K")
    path.write_bytes(b"damaged" + FILES["m-Q6_K.gguf"][7:])
    with pytest.raises(ModelFormatError, match=r"`foundry pull owner/m-GGUF:m-Q6_K\.gguf` checks the file"):
        foundry.CompiledModel.load(path)
    assert foundry.pull("owner/m-GGUF:Q6_K", verify=True).read_bytes() == FILES["m-Q6_K.gguf"]
    played.repositories["owner/m-GGUF"]["m-Q6_K.gguf"] = newer = content("newer")
    assert foundry.pull("owner/m-GGUF:Q6_K").read_bytes() == FILES["m-Q6_K.gguf"]
    assert foundry.pull("owner/m-GGUF:Q6_K", verify=True).read_bytes() == newer
    assert len(held()) == 2


def test_a_fetch_that_ended_just_before_its_sum_was_noted(played: Hub) -> None:
    path = foundry.pull("owner/m-GGUF:Q6_K")
    path.with_name(path.name + ".sha256").unlink()
    assert foundry.pull("owner/m-GGUF:Q6_K") == path and len(played.asked) == 1 and len(held()) == 2


def test_a_token(played: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    played.token = "secret"
    for gated, why in ((False, "a private one wants a token"), (True, "wants a licence to be accepted on its page")):
        played.gated = gated
        with pytest.raises(PermissionError, match=f"owner/m-GGUF: .*{why}.* HF_TOKEN or --token"):
            foundry.pull("owner/m-GGUF:Q6_K")
    assert main(["pull", "owner/m-GGUF:Q6_K", "--token", "wrong"]) == 1
    assert "HF_TOKEN or --token" in capsys.readouterr().err
    assert main(["pull", "owner/m-GGUF:Q6_K", "--token", "secret"]) == 0
    hub.remove("owner/m-GGUF")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert foundry.pull("owner/m-GGUF:Q6_K").read_bytes() == FILES["m-Q6_K.gguf"]


def test_what_is_not_there(played: Hub) -> None:
    with pytest.raises(ValueError, match="owner/nothing: expected a repository of the hub, found none"):
        foundry.pull("owner/nothing")
    with pytest.raises(ValueError, match=r"for 'Q4_K_S', found none; the nearest are m-Q4_K_M\.gguf, "):
        foundry.pull("owner/m-GGUF:Q4_K_S")
    assert held() == set()


def test_without_a_network(played: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = foundry.pull("owner/m-GGUF:Q6_K")
    played.close()
    for name in ("owner/m-GGUF", "owner/m-GGUF:Q6_K"):
        for verify in (False, True):
            assert foundry.pull(name, verify=verify) == path
    with pytest.raises(ConnectionError, match="owner/m-GGUF"):
        foundry.pull("owner/m-GGUF:Q4_K_M")
    path.write_bytes(FILES["m-Q6_K.gguf"][:-1] + b"x")
    with pytest.raises(ModelFormatError, match=r"expected sha256 .*, found .*; it can't be fetched again"):
        foundry.pull("owner/m-GGUF:Q6_K", verify=True)
    monkeypatch.setattr(repository.importlib.util, "find_spec", lambda name: None)
    assert foundry.pull("owner/m-GGUF") == path
    with pytest.raises(ValueError, match=r"pip install 'foundry-llm\[hub\]'"):
        foundry.pull("owner/m-GGUF:Q4_K_M")


def test_a_disk_without_room(played: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told before a byte is fetched."""
    usage = repository.shutil.disk_usage(".")
    monkeypatch.setattr(repository.shutil, "disk_usage", lambda path: usage._replace(free=200 * KIB))
    with pytest.raises(OSError, match=r"No space left on device: needed 300.0 KiB, available 200.0 KiB") as caught:
        foundry.pull("owner/m-GGUF:Q6_K")
    assert caught.value.errno == errno.ENOSPC and not isinstance(caught.value, ConnectionError) and played.asked == []


def test_a_disk_that_fills_up_on_the_way(played: Hub, tmp_path: Path) -> None:
    """As a limit on a file's size does; with more room it goes on."""
    code = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))\n"
        "from foundry.cli import main; sys.exit(main(['pull', 'owner/m-GGUF:Q6_K']))"
    )
    short = in_a_process(played, tmp_path, code, str(100 * KIB))
    assert short.returncode == 1 and "File too large" in short.stderr and short.stderr.count("\n") == 1
    assert in_a_process(played, tmp_path, code, str(1 << 20)).returncode == 0
    assert [bool(asked) for _, asked in played.asked] == [False, True]


def test_paths_that_leave_their_folder_are_not_fetched(played: Hub) -> None:
    played.repositories["owner/m-GGUF"] = {
        name: b"x" for name in ("../../evil.gguf", "/evil.gguf", "a/../../evil.gguf", ".lock", "a\\evil.gguf")
    }
    with pytest.raises(ValueError, match="found no GGUF file"):
        foundry.pull("owner/m-GGUF")
    assert held() == set()


def test_what_huggingface_hub_keeps_is_taken_from_there(played: Hub, tmp_path: Path) -> None:
    """Without a byte fetched, and without a second copy; what is let go of here stays there."""
    repo = tmp_path / "theirs/models--owner--m-GGUF"
    blob = repo / "blobs" / hashlib.sha256(FILES["m-Q6_K.gguf"]).hexdigest()
    for folder in (blob.parent, repo / "refs", repo / "snapshots" / REVISION):
        folder.mkdir(parents=True)
    (repo / "refs/main").write_text(REVISION)
    blob.write_bytes(FILES["m-Q6_K.gguf"])
    (repo / "snapshots" / REVISION / "m-Q6_K.gguf").symlink_to(blob)
    path = foundry.pull("owner/m-GGUF:Q6_K")
    assert path.samefile(blob) and played.asked == []
    hub.remove("owner/m-GGUF")
    assert not path.exists() and blob.read_bytes() == FILES["m-Q6_K.gguf"]
    blob.write_bytes(b"x" * len(FILES["m-Q6_K.gguf"]))
    assert foundry.pull("owner/m-GGUF:Q6_K").read_bytes() == FILES["m-Q6_K.gguf"] and len(played.asked) == 1


def test_list_and_rm(played: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("Q6_K", "Q4_K_M", "Q8_0"):
        foundry.pull(f"owner/m-GGUF:{name}")
    packaged = places.models_dir() / hub.PACKAGED["smollm2"].member
    packaged.write_bytes(b"x" * 1000)
    assert main(["list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["bytes"]) for one in told["models"]] == [
        ("smollm2", 1000),
        ("owner/m-GGUF:m-Q4_K_M.gguf", 300 * KIB),
        ("owner/m-GGUF:m-Q6_K.gguf", 300 * KIB),
        (f"owner/m-GGUF:{PARTS[0]}", 900 * KIB),
    ]
    assert told["bytes"] == 1000 + 1500 * KIB and not any(one["unfinished"] for one in told["models"])
    assert main(["list"]) == 0
    assert "owner/m-GGUF:m-Q6_K.gguf  " in (out := capsys.readouterr().out) and "in all" in out
    sums = sum(len(f"{'0' * 64}  {Path(name).name}\n") for name in PARTS)
    assert hub.remove(f"owner/m-GGUF:{PARTS[0]}") == 900 * KIB + sums
    assert main(["rm", "smollm2", "owner/m-GGUF:Q6_K"]) == 0 and not packaged.exists()
    assert "given back" in capsys.readouterr().out
    assert {name for name in held() if name.endswith(".gguf")} == {"hub/owner/m-GGUF/m-Q4_K_M.gguf"}
    nearest = {"owner/m-GGUF:Q6_K": "the nearest are m-Q4_K_M.gguf", "smollm2": "found owner/m-GGUF:m-Q4_K_M.gguf"}
    for name, said in nearest.items():
        assert main(["rm", name]) == 1
        assert said in capsys.readouterr().err
    assert main(["rm", "owner/m-GGUF", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] > 300 * KIB
    assert held() == set() and not (places.models_dir() / "hub/owner").exists()
    assert main(["list"]) == 0 and "0 B" in capsys.readouterr().out


def test_rm_frees_what_is_unfinished(played: Hub) -> None:
    for name in ("owner/m-GGUF:m-Q6_K.gguf", "owner/m-GGUF"):
        played.cuts = [100 * KIB, *[0] * 20]
        with pytest.raises(ConnectionError):
            foundry.pull("owner/m-GGUF:Q6_K")
        assert hub.remove(name) >= 80 * KIB and held() == set()


def test_a_model_of_the_hub_is_run_by_its_name(
    played: Hub, tiny_path: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    played.repositories["owner/tiny"] = {"tiny-Q8_0.gguf": tiny_path().read_bytes()}
    for _ in range(2):
        assert main(["generate", "Hello", "-m", "owner/tiny:Q8_0", "-n", "4", "--raw", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["usage"]["completion_tokens"] == 4
    assert len(played.asked) == 1 and played.listings == 1
