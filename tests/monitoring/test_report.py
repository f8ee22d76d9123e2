"""The report command, from an event log and a state file to a page, and what it says to wrong arguments."""

import base64
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_repo.contract.policy import Policy
from monitoring.__main__ import main
from monitoring.drawn_streams import BEGAN, POLICY, TAXONOMY, Change, DrawnStream
from monitoring.event_reader import Cursor
from monitoring.incident_store import IncidentStore
from monitoring.incidents import Check, Incident, Remedy
from monitoring.observations import StreamKey
from monitoring.reference_window import pin
from monitoring.remedies import ActionResult, Awaited, SignalRecord
from monitoring.report_rows import read_range
from monitoring.state_file import StateFile
from monitoring.windows import Window
from tests.monitoring.drawn_log import make_repository, serve, write
from tests.monitoring.event_logs import WrittenLog

DAY = ("--from", "2023-11-14", "--to", "2023-11-16")
"""Holds BEGAN, which is 2023-11-14 22:13:20 UTC."""
SECRET = "customer words that stay in the log"
HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Version 1 under policies 1.1 and 1.2."""
    root = tmp_path / "versions"
    make_repository(root).add_policy(second_policy())
    return root


@pytest.fixture(scope="module")
def full_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two policies, labels, a pinned reference, an incident that recovered and one with hostile words."""
    folder = tmp_path_factory.mktemp("full")
    make_repository(folder / "versions").add_policy(second_policy())
    log = WrittenLog(folder / "events.sqlite")
    write_two_policies(log)
    log.close()
    write_state(folder / "state.sqlite", log.path)
    return report(folder, log.path, folder / "versions", "--state", str(folder / "state.sqlite"))


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The usual state file is not that of whoever runs the tests."""
    monkeypatch.setenv("MONITOR_STATE_PATH", str(tmp_path / "absent.sqlite"))


def second_policy() -> Policy:
    """A revision."""
    return replace(POLICY, revision=2, temperature=1.2)


def write_two_policies(log: WrittenLog) -> None:
    """A quiet stretch under the first policy, then one that is too sure of itself under the second."""
    stream = DrawnStream(np.random.default_rng(3))
    write(log, stream, 600, text_of=lambda _: SECRET)
    serve(stream, second_policy())
    write(log, stream, 500, Change(sharpness=3.0), text_of=lambda _: SECRET)


def write_state(path: Path, log: Path) -> None:
    """A pinned reference of the first 400 rows, an incident that recovered, and one whose words are hostile."""
    rows = read_range(log, BEGAN - 1, BEGAN + 86_400, lambda _: TAXONOMY, BEGAN + 86_400)
    first = next(stream for stream in rows.streams if stream.key.policy == "1.1")
    window = Window(first.key, TAXONOMY, first.predictions[:400], first.labelled[:400], np.zeros((0, 0), np.float16))
    state = StateFile(path)
    incidents = IncidentStore(state)
    with state.transaction():
        state.put("reference/1", pin(window, np.random.default_rng(0)).to_bytes())
        for incident in (recovered_incident(), hostile_incident()):
            incidents.save(incident)
    state.close()


def recovered_incident() -> Incident:
    """An ECE that went up, was re-fitted, and came back."""
    ece = SignalRecord("ece", 0.061, 0.04, 0.08, 900, "breached", 0.012, 0.01)
    after = replace(ece, name="ece_after_refit", value=0.013, low=0.0, high=0.02, verdict="ok")
    result = ActionResult("done", "T = 1.4 on 450 labels", {"temperature": 1.4}, (after,))
    check = Check(BEGAN + 900, "recovered", "ECE is back", (after,))
    remedy = Remedy("key", "refit_calibrator", BEGAN + 310, 1, BEGAN + 312, result, check)
    stream, path = StreamKey("1", "1.1", "champion"), ("ECE up >= 0.01", "ECE after a re-fit", "not yet tried")
    return Incident(
        "ece_up-1",
        "ece_up",
        "ece_up/refit",
        stream,
        BEGAN + 300,
        path,
        (ece,),
        None,
        (remedy,),
        "recovered",
        BEGAN + 900,
    )


def hostile_incident() -> Incident:
    """Words from outside in every field that has some."""
    stream = StreamKey("1", "1.2", "champion")
    result = ActionResult("failed", HOSTILE * 3, {"file": HOSTILE})
    remedy = Remedy("key2", "retrain", BEGAN + 700, 8, BEGAN + 800, result)
    record = SignalRecord(f"accuracy[channel={HOSTILE}]", None, None, None, 10, "breached", None, None)
    return Incident(
        "x",
        "accuracy_down",
        HOSTILE,
        stream,
        BEGAN + 690,
        (HOSTILE,),
        (record,),
        f"channel={HOSTILE}",
        (remedy,),
        "needs_people",
        awaited=Awaited("discover_intents", 80, 23, since=BEGAN, until=BEGAN + 9000, precision=0.7),
    )


def report(tmp_path: Path, log: Path, repository: Path, *more: str) -> str:
    """The page that the command writes."""
    out = tmp_path / "report.html"
    arguments = ["report", *DAY, "--log", str(log), "--model-repo", str(repository), "--out", str(out), *more]
    assert main(arguments) == 0
    return out.read_text(encoding="utf-8")


def pictures(page: str) -> list[str]:
    """The SVG of each picture."""
    return [base64.b64decode(body).decode() for body in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)]


def headings(page: str) -> list[str]:
    """Of sections and pictures."""
    return re.findall(r"<h[23]>([^<]*)</h[23]>", page)


def test_report_shows_every_part(full_page: str) -> None:
    """Every section, the numbers of the incident, and the incidents on the time axes."""
    page = full_page
    titles = headings(page)
    for title in ("Traffic", "Accuracy", "Calibration error", "Drift", "Latency by stage", "Segments"):
        assert title in titles
    assert {"Reliability of 1/1.1/champion", "Confusion of 1/1.2/champion"} <= set(titles)
    assert "1,100" in page
    assert "T = 1.4 on 450 labels" in page
    assert "0.0130" in page
    assert "Check 2023-11-14 22:28:20 UTC: recovered. ECE is back" in page
    assert "discover_intents waits: about 23 utterances of what is new" in page
    assert re.search(r"<th scope=\"row\">ECE, equal width, debiased</th>.*?breached", page)
    drawn = pictures(page)
    assert len(drawn) == len(re.findall("<figure>", page)) == 9
    assert ">I1<" in drawn[0]
    assert ">policy 1.2<" in drawn[0]


def test_report_needs_nothing_from_elsewhere_and_shows_no_text(full_page: str) -> None:
    """No script, no address, no customer's words, whatever an incident says; every picture has its words."""
    page = full_page
    whole = page + "".join(pictures(page))
    assert "<script" not in whole
    assert "&lt;script&gt;alert" in page
    assert SECRET not in whole
    assert re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", page) == []
    assert "@import" not in page
    images = re.findall(r"<img [^>]*>", page)
    assert all(len(re.search(r'alt="([^"]*)"', image).group(1)) > 40 for image in images)  # type: ignore[union-attr]


def test_same_rows_give_the_same_page(tmp_path: Path, log: WrittenLog, repository: Path) -> None:
    """But for the time at which it was made."""
    write(log, DrawnStream(np.random.default_rng(3)), 60)
    pages = [report(tmp_path, log.path, repository) for _ in range(2)]
    made = re.compile(r"Made [^,]*,")
    assert made.sub("", pages[0]) == made.sub("", pages[1])


def test_range_without_labels_says_so(tmp_path: Path, log: WrittenLog, repository: Path) -> None:
    """Traffic, drift and latency are shown; quality is not claimed."""
    write(log, DrawnStream(np.random.default_rng(3)), 300)
    log.connection.execute("DELETE FROM labels")
    page = report(tmp_path, log.path, repository)
    assert "No prediction of the range has a label yet" in page
    assert {"Traffic", "Latency by stage"} <= set(headings(page))
    assert "Accuracy" not in headings(page)
    assert "incidents: no state file" in page


def test_empty_range_says_so(tmp_path: Path, log: WrittenLog, repository: Path) -> None:
    """Nothing is drawn of nothing."""
    write(log, DrawnStream(np.random.default_rng(3)), 50)
    page = report(tmp_path, log.path, repository, "--from", "2030-01-01", "--to", "2030-01-02")
    assert "holds no prediction of this range" in page
    assert "<figure>" not in page


def test_what_was_left_out_is_said(tmp_path: Path, log: WrittenLog, repository: Path) -> None:
    """Events of a version that is not there, and malformed ones."""
    stream = DrawnStream(np.random.default_rng(3))
    write(log, stream, 60)
    stream.key = StreamKey("7", "7.1", "champion")
    write(log, stream, 40)
    log.write_predictions([("bad", BEGAN + 5, "{")])
    page = report(tmp_path, log.path, repository)
    assert "Events left out, of versions that the model repository does not hold: 40." in page
    assert "Events left out, malformed: 1." in page


def test_state_of_a_running_sidecar_is_read_beside_it(tmp_path: Path, log: WrittenLog, repository: Path) -> None:
    """The lock stays with the sidecar, and nothing of the state changes."""
    # The incident begins behind the last answer, and is on no time axis.
    write(log, DrawnStream(np.random.default_rng(3)), 80)
    path = tmp_path / "state.sqlite"
    held = StateFile(path)
    try:
        IncidentStore(held).save(recovered_incident())
        with held.transaction():
            held.put("cursor", Cursor().to_json())
            page = report(tmp_path, log.path, repository, "--state", str(path))
        assert "ece_up-1" in page
        assert ">I1<" not in "".join(pictures(page))
        assert held.get("cursor") == Cursor().to_json()
    finally:
        held.close()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (("--to", "2023-11-14"), "--to must be later than --from"),
        (("--from", "yesterday"), "--from must be a time like"),
        (("--log", "absent.sqlite"), "--log: absent.sqlite is no file"),
        (("--log", __file__), "--log: "),
        (("--state", "absent.sqlite"), "--state: absent.sqlite is no file"),
        (("--state", __file__), "--state: "),
        (("--model-repo", "absent"), "--model-repo: absent is no folder"),
        (("--out", "absent/report.html"), "--out: absent/report.html cannot be written"),
    ],
)
def test_wrong_argument_is_named_in_one_line(
    changed: tuple[str, str],
    named: str,
    tmp_path: Path,
    log: WrittenLog,
    repository: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit status 2, and no page."""
    write(log, DrawnStream(np.random.default_rng(3)), 20)
    out = tmp_path / "report.html"
    usual = ["report", *DAY, "--log", str(log.path), "--model-repo", str(repository), "--out", str(out)]
    assert main([*usual, *changed]) == 2
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_state_of_another_schema_is_refused(
    tmp_path: Path, log: WrittenLog, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An event log is a SQLite file too, and no state."""
    write(log, DrawnStream(np.random.default_rng(3)), 20)
    out = tmp_path / "report.html"
    usual = ["report", *DAY, "--log", str(log.path), "--model-repo", str(repository), "--out", str(out)]
    assert main([*usual, "--state", str(log.path)]) == 2
    assert "--state: " in capsys.readouterr().err
