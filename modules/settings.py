"""Typed settings: defaults < config.yaml < environment (EASEL_PORT, ...) < command line."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

PROGRAM = Path(__file__).resolve().parent.parent
DEFAULT_PORT = 7860
UPSCALER_FOLDERS = ("ESRGAN", "RealESRGAN", "SwinIR", "DAT", "HAT", "ScuNET", "BSRGAN")
_MAX_CONFIG = 1 << 20  # bytes


class BadSettings(ValueError):
    """A setting that cannot be used: one line that names where it came from."""


class Settings(BaseModel):
    """What holds for a whole run of the program. Paths are absolute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    port: int | None = Field(None, ge=1, le=65535, description=f"port of the page (default: {DEFAULT_PORT}, or the next free one)")
    listen: bool = Field(False, description="answer other machines too; needs --auth, or prints a token")
    auth: str | None = Field(None, pattern=r"^[^:]+:.+$", description="user:password asked of everyone")
    hosts: list[str] = Field([], description="further names this page may be reached by, behind a proxy say")
    autolaunch: bool = Field(False, description="open the page in the browser")
    theme: Literal["system", "light", "dark"] = Field("system", description="light, dark, or as the system says")
    data_dir: Path = Field(PROGRAM, description="where models, outputs and config.yaml are (default: the program's folder)")
    models_dir: Path | None = Field(None, description="the models folder (default: models in the data folder)")
    ckpt_dir: Path | None = Field(None, description="a further folder with checkpoints")
    vae_dir: Path | None = Field(None, description="a further folder with VAEs")
    lora_dir: Path | None = Field(None, description="a further folder with LoRAs")
    esrgan_models_path: Path | None = Field(None, description="a further folder with upscalers")
    datasets_dir: Path | None = Field(None, description="a further folder with folders of captioned pictures to train on")
    outdir: Path | None = Field(None, description="where pictures go (default: outputs in the data folder)")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="what draws")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="number format; auto measures this machine")

    memory_budget: float | None = Field(None, ge=0, description="GB for recent checkpoints to stay loaded in (default: half of the memory)")

    @property
    def models(self) -> Path:
        return self.models_dir or self.data_dir / "models"

    @property
    def outputs(self) -> Path:
        return self.outdir or self.data_dir / "outputs"

    @property
    def state(self) -> Path:
        """What the program writes down for itself: queue, hashes, measurements."""
        return self.data_dir / "state"

    @property
    def incoming(self) -> Path:
        """The pictures that waiting jobs and drafts start from."""
        return self.state / "incoming"

    @property
    def hashes(self) -> Path:
        """What is known of model files: their hashes, and what was seen in them."""
        return self.state / "hashes.sqlite3"

    @property
    def checkpoint_roots(self) -> list[Path]:
        return [self.models / "Stable-diffusion", *([self.ckpt_dir] if self.ckpt_dir else [])]

    @property
    def vae_roots(self) -> list[Path]:
        return [self.models / "VAE", *([self.vae_dir] if self.vae_dir else [])]

    @property
    def lora_roots(self) -> list[Path]:
        return [self.models / "Lora", self.models / "LyCORIS", *([self.lora_dir] if self.lora_dir else [])]

    @property
    def upscaler_roots(self) -> list[Path]:
        own = [self.models / name for name in UPSCALER_FOLDERS]
        return [*own, *([self.esrgan_models_path] if self.esrgan_models_path else [])]

    @property
    def packed_upscalers(self) -> Path:
        """Where the networks that come with the program are unpacked."""
        return self.models / "RealESRGAN"

    @property
    def dataset_roots(self) -> list[Path]:
        return [self.data_dir / "datasets", *([self.datasets_dir] if self.datasets_dir else [])]

    @property
    def training(self) -> Path:
        """Where trainings keep what they need to go on, a folder each."""
        return self.data_dir / "training"


def load(given: Mapping[str, object]) -> Settings:
    """The settings with `given` (the command line's; None means not given) above everything. BadSettings names the culprit."""
    environment = {name: os.environ[f"EASEL_{name.upper()}"] for name in Settings.model_fields if os.environ.get(f"EASEL_{name.upper()}")}
    line = {name: value for name, value in given.items() if name in Settings.model_fields and value is not None}
    data_dir = _absolute(Path(line.get("data_dir") or environment.get("data_dir") or PROGRAM))
    config = data_dir / "config.yaml"
    sources = [(str(config), _read_config(config)), ("the environment (EASEL_…)", environment), ("the command line", line)]
    merged: dict[str, object] = {"data_dir": data_dir}
    for source, values in sources:
        merged |= _checked(source, values)
    return Settings(**merged)


def _checked(source: str, values: Mapping[str, object]) -> dict[str, object]:
    try:
        settings = Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        says = "must be user:password" if name == "auth" else first["msg"].lower()
        raise BadSettings(f"{source}: {name}: {says}") from None
    checked = {name: getattr(settings, name) for name in values}
    return {name: _absolute(value) if isinstance(value, Path) else value for name, value in checked.items()}


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise BadSettings(f"{path}: there is no such user") from None


def _read_config(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _MAX_CONFIG:
            raise BadSettings(f"{path}: is larger than a configuration can be")
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadSettings(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict):
        raise BadSettings(f"{path}: must be `name: value` lines")
    return values
