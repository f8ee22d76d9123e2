"""The composition root: builds every object of the process and passes it in. Reading it shows the whole wiring."""

import importlib.util
import logging
import shlex
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import uvicorn
from fastapi import FastAPI

from model_repo.store import Store
from monitoring.alerts import AlertRules
from monitoring.clock import SteadyClock
from monitoring.course import WaitRule
from monitoring.deliverer import Deliverer
from monitoring.discovery import DiscoverIntents
from monitoring.errors import BadHook
from monitoring.event_texts import EventTexts
from monitoring.failure_tree import REFIT_SIGNAL, FailureTree, load
from monitoring.hooks import CommandHook, SageMakerHook, WebhookHook
from monitoring.http_app import http_app
from monitoring.incident_store import OutboxRules
from monitoring.journey import Journey
from monitoring.loop import Loop, Pace
from monitoring.monitor import Monitor, Rules
from monitoring.refit import RefitCalibrator, SwapCalibrator
from monitoring.relabel import RelabelSegment, SampleForLabels
from monitoring.remedies import Action, Hook
from monitoring.retrain import Retrain
from monitoring.settings import MonitorSettings
from monitoring.snapshot import Watched
from monitoring.sources import StoreSources
from monitoring.state_file import StateFile, hold
from monitoring.steering import ServiceLimits, steering_actions
from monitoring.stream_watch import StreamWatches, WatchSettings
from monitoring.telemetry import Telemetry

log = logging.getLogger(__name__)

NO_PORT, DIED = 3, 4
ROOT = Path(__file__).resolve().parents[1]


def run(settings: MonitorSettings, stand_ins: Mapping[str, Action] | None = None) -> int:
    """
    Watch until SIGTERM or Ctrl+C; the exit status: 0 when told to stop, 3 without the port, 4 when the loop died.

    Raises MonitoringError when the state, the tree or a hook refuses. ``stand_ins``: see ``build``.
    """
    watched = Watched()
    telemetry = Telemetry(lambda: watched.snapshot)
    server = uvicorn.Server(_server_config(settings, http_app(watched, telemetry)))
    # Held to the end of the process.
    _hold_log(settings.event_log_path)
    state = StateFile(settings.state_path)
    try:
        try:
            listener = server.config.bind_socket()
        except SystemExit:
            # Its reason is in the log.
            return NO_PORT
        sidecar = build(settings, state, telemetry, stand_ins)

        def end() -> None:
            server.should_exit = True

        pace = Pace(settings.poll_seconds, settings.assess_seconds)
        loop = Loop(sidecar.monitor, watched, telemetry, pace, SteadyClock(), end)
        loop.start()
        try:
            _serve(server, listener)
        finally:
            loop.stop()
            sidecar.close()
        return DIED if loop.has_died else 0
    finally:
        state.close()


@dataclass(frozen=True)
class Sidecar:
    """Everything but the loop's thread and the socket."""

    monitor: Monitor
    journey: Journey
    deliverer: Deliverer
    hook: CommandHook | WebhookHook | SageMakerHook

    def close(self) -> None:
        """What runs is ended: its request is due again at the next start."""
        if isinstance(self.hook, CommandHook):
            self.hook.close()
        still_running = self.deliverer.close()
        if still_running:
            log.warning("left running, and asked for again at the next start: %s", ", ".join(still_running))
        self.journey.close()


def build(
    settings: MonitorSettings,
    state: StateFile,
    telemetry: Telemetry,
    stand_ins: Mapping[str, Action] | None = None,
) -> Sidecar:
    """
    Raises MonitoringError when the state, the tree or a hook refuses, ContractError for a bad cost table.

    ``stand_ins`` take the place of what does an action otherwise, by its name.
    """
    tree = load()
    store = Store(settings.model_repo)
    sources = StoreSources(store, settings.costs_file)
    hook = hook_of(settings)
    actions = {**actions_of(settings, store, tree, hook), **(stand_ins or {})}
    if settings.actions_enabled:
        check_actions(tree, actions)
    journey = Journey(settings.event_log_path, state, sources.taxonomy)
    deliverer = Deliverer(actions)
    watch_settings = WatchSettings(
        window_predictions=settings.window_predictions,
        window_labelled=settings.window_labelled,
        reference=settings.reference,
        pin_predictions=settings.pin_predictions,
        pin_labelled=settings.pin_labelled,
        pin_growth=settings.pin_growth,
    )
    rules = Rules(
        AlertRules(settings.alert_begin_after, settings.alert_end_after, settings.alert_cooldown_seconds),
        OutboxRules(
            first_wait_s=settings.outbox_first_wait_seconds,
            longest_wait_s=settings.outbox_longest_wait_seconds,
            attempts=settings.outbox_attempts,
        ),
        acts=settings.actions_enabled,
        waits={
            "discover_intents": WaitRule(settings.discovery_utterances, settings.discovery_longest_wait_seconds),
        },
    )
    monitor = Monitor(
        state,
        journey,
        tree,
        StreamWatches(tree, sources, watch_settings, state.get),
        deliverer,
        rules,
        telemetry,
        sources.deployment_number,
        np.random.default_rng(),
    )
    return Sidecar(monitor, journey, deliverer, hook)


def hook_of(settings: MonitorSettings) -> CommandHook | WebhookHook | SageMakerHook:
    """What a retrain request goes out by; raises BadHook."""
    if settings.hook == "webhook":
        return WebhookHook(settings.hook_url, settings.hook_secret, min(settings.hook_timeout_seconds, 30.0))
    if settings.hook == "sagemaker":
        return SageMakerHook(
            settings.sagemaker_pipeline, settings.sagemaker_region, parameters=settings.sagemaker_parameters
        )
    command = shlex.split(settings.retrain_command) if settings.retrain_command else default_command()
    return CommandHook(command, settings.hook_timeout_seconds)


def check_actions(tree: FailureTree, actions: Mapping[str, Action]) -> None:
    """Raises BadHook naming each action that the tree may ask for and nothing does."""
    lacking = sorted(set(tree.actions) - set(actions))
    if lacking:
        raise BadHook(f"nothing does what the failure tree asks for: {', '.join(lacking)}")


def default_command() -> list[str]:
    """The pipeline of this repository; a warning says so when no Python that is known here can run it."""
    trainer = ROOT / ".venv-dev" / "bin" / "python"
    if not trainer.exists() and importlib.util.find_spec("torch") is None:
        log.warning("a retrain would fail: the pipeline's packages (extra `train`) are not installed")
    python = str(trainer) if trainer.exists() else sys.executable
    options = ["--preset", "default", "--production-labels", "{production_labels}", "--out", "{out}"]
    return [python, "-m", "model_repo", "run", *options]


def actions_of(settings: MonitorSettings, store: Store, tree: FailureTree, hook: Hook) -> dict[str, Action]:
    """What does each action of the tree."""
    texts = EventTexts(settings.event_log_path)
    retrain = Retrain(settings.event_log_path, settings.work_folder, hook, settings.retrain_minimum_labels)
    limits = ServiceLimits(settings.service_batch_tokens, settings.service_max_in_flight)
    return {
        "relabel_segment": RelabelSegment(texts, settings.work_folder, retrain),
        "retrain": retrain,
        "sample_for_labels": SampleForLabels(texts, settings.work_folder),
        "refit_calibrator": RefitCalibrator(store, tree.watches[REFIT_SIGNAL], settings.work_folder),
        "swap_calibrator": SwapCalibrator(store, settings.work_folder),
        "discover_intents": DiscoverIntents(settings.event_log_path, settings.work_folder),
        **steering_actions(store, limits),
    }


def _hold_log(event_log: Path) -> None:
    """Two sidecars on one log would ask for every remedy twice, however many states they have."""
    lock = event_log.with_name(event_log.name + ".monitor.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        hold(lock, "log")
    except OSError as error:
        log.warning("another sidecar on this log would not be noticed: %s", error)


def _server_config(settings: MonitorSettings, app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )


def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    """Until a signal. uvicorn raises it once more after it has stopped, which must not cut the end short."""
    signal.signal(signal.SIGTERM, _raise_end)
    try:
        server.run(sockets=[listener])
    except (KeyboardInterrupt, SystemExit):
        log.info("told to stop")


def _raise_end(*_: object) -> None:
    raise SystemExit(0)
