"""The front desk: everything the page, the API and the command line may ask of a running server, without torch."""

import contextlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from instant_clip_tokenizer import Tokenizer

from modules.gallery.pictures import Entry, Gallery
from modules.incoming.extend import extended
from modules.incoming.shelf import Shelf
from modules.jobs.queue import Job, Queue
from modules.jobs.supervisor import Board, Supervisor
from modules.jobs.trainings import Trainings
from modules.model_manager.choice import recipe_for, usable
from modules.model_manager.hashes import measure_missing
from modules.model_manager.library import Checkpoint, VaeFile, scan, scan_vaes
from modules.model_manager.loras import Lora, scan_loras
from modules.model_manager.upscalers import Upscaler, find_upscaler, provide, scan_upscalers
from modules.recipe import prompt, upscaling
from modules.recipe.fields import Recipe, to_dict
from modules.recipe.plan import finished_size, steps_drawn
from modules.recipe.upscaling import Described, Upscaling
from modules.settings import Settings
from modules.store import Store

SHOWN_WAITING = 50
SHOWN_PROMPT = 200  # characters
PICTURES = ("init_image", "mask", "picture")  # the fields that name pictures
MAX_DRAFT = 1 << 20  # characters
PATIENCE = 5.0  # seconds for the model folders to answer
IDLE = 0.5  # seconds between two looks whether nobody draws


def engine_arguments(settings: Settings) -> list[str]:
    """How the engine process is told what it may read and how it should compute."""
    roots = [f"--checkpoints={root}" for root in settings.checkpoint_roots]
    vaes = [f"--vaes={root}" for root in settings.vae_roots]
    loras = [f"--loras={root}" for root in settings.lora_roots]
    budget = [] if settings.memory_budget is None else [f"--memory-budget={settings.memory_budget}"]
    upscalers = [f"--upscalers={root}" for root in settings.upscaler_roots]
    how = [*budget, f"--device={settings.device}", f"--precision={settings.precision}"]
    return [*roots, *vaes, *loras, *upscalers, f"--state={settings.state}", f"--incoming={settings.incoming}", *how]


@dataclass(frozen=True)
class Listed:
    """What lies in the model folders, as of the refresh that had this `version`."""

    checkpoints: list[Checkpoint]
    vaes: list[VaeFile]
    version: int

    @cached_property
    def refused(self) -> list[dict[str, str]]:
        """The files that cannot be used, and why."""
        return [{"name": file.name, "reason": file.reason} for file in (*self.checkpoints, *self.vaes) if file.status == "refused"]


class Desk:
    """Takes requests, knows what stands where, and shows it as one snapshot."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.version = 0  # rises with every change of the snapshot
        self._store = Store(settings.state / "easel.sqlite3")
        self._queue = Queue(self._store, read=upscaling.read)
        self.gallery = Gallery(self._store, settings.outputs)
        self.shelf = Shelf(settings.incoming)
        self._supervisor = Supervisor(self._queue, engine_arguments(settings), self.gallery.keep, self._changed)
        self.trainings = Trainings(self._store, self.gallery, settings, self.checkpoints, self._changed, self.refresh_checkpoints)
        self._listed = Listed([], [], 0)
        self._listing = threading.Lock()
        self._slow = self._closed = False

    def open(self) -> None:
        """Start working: the queue goes on where the last server left it."""
        self._queue.put_back()
        self._sweep_shelf()
        self.refresh_checkpoints()
        wanted = self.draft().get("checkpoint", "")
        try:
            preload = usable(self.checkpoints(), wanted if isinstance(wanted, str) else "").name
        except LookupError:
            preload = ""
        self._supervisor.start(preload)
        self.trainings.open()

    def close(self) -> None:
        self._closed = True
        self.trainings.close()
        self._supervisor.stop()
        self._store.close()

    def checkpoints(self) -> list[Checkpoint]:
        return self._listed.checkpoints

    def vaes(self) -> list[str]:
        return [vae.name for vae in self._listed.vaes if vae.status == "ok"]

    def refused(self) -> list[dict[str, str]]:
        """The model files that cannot be used, and why."""
        return self._listed.refused

    def loras(self) -> list[Lora]:
        return scan_loras(self.settings.lora_roots, self.settings.hashes)

    def upscalers(self) -> list[Upscaler]:
        return scan_upscalers(self.settings.upscaler_roots, self.settings.hashes)

    def refresh_checkpoints(self) -> None:
        """Look into the model folders again. Folders that do not answer (a share that is gone) leave the list as it was until they do."""
        listed = threading.Event()
        threading.Thread(target=self._list, args=(listed,), name="models", daemon=True).start()
        self._slow = not listed.wait(PATIENCE)
        self._changed()

    def resolve(self, request: Mapping[str, object]) -> Recipe:
        """The recipe for a request; BadField names the field that is wrong."""
        models = self.checkpoints(), self._listed.vaes, self.settings.lora_roots, self.settings.upscaler_roots
        return recipe_for(request, *models, self.settings.hashes, self.shelf)

    def submit(self, request: Mapping[str, object]) -> int:
        """Queue a request and return the job's id. BadField or QueueFull say why not."""
        job = self._queue.add(self.resolve(request))
        self._changed()
        self._supervisor.wake()
        return job

    def upscale(self, requests: Sequence[Mapping[str, object]]) -> list[int]:
        """Queue an upscaling for each request and return the jobs' ids. BadField or QueueFull say why not; then none is queued."""
        upscalers = self.upscalers()

        def named(wanted: str) -> str:
            return find_upscaler(upscalers, wanted).name

        jobs = self._queue.add_all([upscaling.resolve(request, named, self.shelf) for request in requests])
        self._changed()
        self._supervisor.wake()
        return jobs

    def job(self, job: int) -> Job | None:
        return self._queue.job(job)

    def take_in(self, data: bytes) -> str:
        """Keep a picture that a job may start from, or a mask, and return its id. BadPicture says why not."""
        self._sweep_shelf()
        return self.shelf.keep(data)

    def extend(self, id: str, left: int, top: int, right: int, bottom: int) -> tuple[str, str]:
        """The ids of the picture with so many pixels more on each side, and of the mask of what is new. BadPicture or LookupError."""
        picture, mask = extended(self.shelf.data(id), left, top, right, bottom)
        return self.take_in(picture), self.take_in(mask)

    def interrupt(self) -> bool:
        return self._supervisor.interrupt()

    def skip(self) -> bool:
        return self._supervisor.skip()

    def drop(self, job: int) -> bool:
        """Take a waiting job out of the queue, or stop a training."""
        dropped = self._queue.drop(job) or self.trainings.cancel(job)
        self._changed()
        return dropped

    def save_again(self, picture: int) -> Entry:
        """Try once more to write a picture that only memory has. LookupError if there is no such picture."""
        entry = self.gallery.save_again(picture)
        self._changed()
        return entry

    def draft(self) -> dict[str, object]:
        """What was last typed into the form."""
        rows = self._store.read("SELECT value FROM drafts WHERE name = 'txt2img'")
        return json.loads(rows[0]["value"]) if rows else {}

    def keep_draft(self, draft: Mapping[str, object]) -> None:
        text = json.dumps({name: value for name, value in draft.items() if _is_typed(value)})
        if len(text) <= MAX_DRAFT:
            self._store.write("INSERT OR REPLACE INTO drafts VALUES ('txt2img', ?)", (text,))

    def count_tokens(self, text: str) -> tuple[int, int]:
        """(tokens of the prompt, tokens its chunks hold)."""
        return prompt.count(text, self._tokenizer.encode)

    def preview(self) -> tuple[int, int, bytes] | None:
        """(job, picture, JPEG) of the newest preview."""
        preview = self._supervisor.board.preview
        return preview and (preview.job, preview.picture, preview.jpeg)

    def snapshot(self) -> dict[str, object]:
        """All that the page shows, as plain data."""
        board = self._supervisor.board
        newest = self.gallery.latest(1)
        return {
            "engine": _engine(board),
            "running": self._running(board),
            "queued": [_waiting(job) for job in self._queue.waiting(SHOWN_WAITING)],
            "queued_count": self._queue.waiting_count(),
            "last": self._last(),
            "trainings": self.trainings.shown(),
            "newest_picture": newest[0].id if newest else None,
            "notices": self._notices(),
            "models": {
                "count": sum(c.status == "ok" for c in self.checkpoints()),
                "refused": len(self.refused()),
                "version": self._listed.version,
            },
        }

    def _list(self, listed: threading.Event) -> None:
        """Lists the models and then, while nobody wants to draw, measures the hashes that are missing."""
        roots, vae_roots, store = self.settings.checkpoint_roots, self.settings.vae_roots, self.settings.hashes
        with self._listing:
            provide(self.settings.packed_upscalers)
            found = Listed(scan(roots, store), scan_vaes(vae_roots, roots, store), self._listed.version + 1)
            self._listed, self._slow = found, False
        listed.set()
        self._changed()

        def pause() -> None:
            while not self._closed and self._supervisor.board.state != "ready":
                time.sleep(IDLE)
            if self._closed or self._listed is not found:
                raise InterruptedError

        with contextlib.suppress(InterruptedError):
            measure_missing([file.path for file in found.checkpoints if file.status == "ok"], store, pause)

    def _last(self) -> dict[str, object] | None:
        job = self._queue.last_ended()
        if job is None:
            return None
        seconds = job.facts.get("seconds", {})
        return {**_waiting(job), "state": job.state, "reason": job.reason, "seconds": seconds.get("total")}

    def _running(self, board: Board) -> dict[str, object] | None:
        job, progress = board.running, board.progress
        if job is None:
            return None
        recipe = job.recipe
        width, height = self._finished_size(recipe)
        steps = max(steps_drawn(recipe), 1) if isinstance(recipe, Recipe) else 1
        return {
            "job": job.id,
            "attempt": job.attempt,
            "prompt": recipe.title[:SHOWN_PROMPT],
            "width": width,
            "height": height,
            "picture": progress.picture if progress else 0,
            "pictures": len(recipe.seeds),
            "step": progress.step if progress else 0,
            "steps": progress.steps if progress else steps,
            "phase": progress.phase if progress else "load",
            "seconds_left": progress.seconds_left if progress else None,
            "interrupting": board.interrupting,
        }

    def _finished_size(self, recipe: Described) -> tuple[int, int]:
        """How large the running job's picture will be; of a picture that went meanwhile, what the recipe says."""
        try:
            if isinstance(recipe, Upscaling):
                return upscaling.finished_size(recipe, self.shelf.size_of(recipe.picture))
            return finished_size(recipe, self.shelf.size_of(recipe.init_image) if recipe.init_image else (0, 0))
        except (LookupError, ValueError):
            return recipe.width, recipe.height

    def _sweep_shelf(self) -> None:
        """Let go of pictures that no job that waits and no draft names."""
        recipes = [to_dict(job.recipe) for job in self._queue.unfinished()]
        self.shelf.sweep({str(values.get(name)) for values in (self.draft(), *recipes) for name in PICTURES})

    def _notices(self) -> list[str]:
        notices = [self._store.notice] if self._store.notice else []
        if self._slow:
            notices.append("The model folders do not answer yet: the lists of models are as they were.")
        if unsaved := self.gallery.unsaved():
            which = "One picture" if unsaved == 1 else f"{unsaved} pictures"
            notices.append(f"{which} could not be saved in {self.settings.outputs}: kept in memory until you save or close Easel.")
        return notices

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer()

    def _changed(self) -> None:
        self.version += 1


def _is_typed(value: object) -> bool:
    """Whether a form can hold the value: text that is text, numbers that JavaScript knows, nothing else."""
    if isinstance(value, str):
        return value.isascii() or value.encode(errors="ignore").decode() == value
    return value is None or isinstance(value, int | float) and abs(value) < 2**63


def _engine(board: Board) -> dict[str, object]:
    ready = board.ready
    known = {"device": ready.device, "number_format": ready.number_format, "why": ready.why} if ready else {}
    return {"state": board.state, "text": board.text, **known}


def _waiting(job: Job) -> dict[str, object]:
    return {"job": job.id, "prompt": job.recipe.title[:SHOWN_PROMPT], "pictures": len(job.recipe.seeds)}
