"""The files of a merge that are no tensors: tokenizer, chat template, generation settings."""

from __future__ import annotations

import atexit
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from evomerge.cache import cache_folder, say_unusable
from evomerge.errors import CheckpointError, Fault
from evomerge.fingerprint import digest_of, fingerprint
from evomerge.models.files import companion_files, read_json
from evomerge.models.merged_vocabulary import GENERATION, special_ids
from evomerge.models.vocabulary import tokens_of

__all__ = ["TOKENIZER_FILES", "Companions", "chat_template"]

TOKENIZER_FILES = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*"),
    *("vocab*", "merges.txt", "*.model", "*.tiktoken", GENERATION),
)
"""Patterns of the files of a tokenizer, and of how its model generates."""
_TOKENIZER, _SETTINGS, _MAP = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
_TEMPLATES = ("chat_template*", "additional_chat_templates/*")
_ROLES = (
    *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
    *("additional_special_tokens", "extra_special_tokens"),
)
_TEXT_TOKENS = ("bos", "eos", "pad", "unk", "sep", "cls", "mask", "decoder_start", "forced")
_FORMAT = 1  # raise when the same choice gets other files


def chat_template(folder: Path) -> str | None:
    """Read the chat template of a model; ``None`` if it has none."""
    files = companion_files(folder)
    if "chat_template.jinja" in files:
        return files["chat_template.jinja"].read_text(encoding="utf-8")
    found = read_json(files[_SETTINGS]).get("chat_template") if _SETTINGS in files else None
    return found if found is None or isinstance(found, str) else json.dumps(found)


@dataclass(frozen=True)
class Companions:
    """Which files a merge has beside its tensors.

    Attributes:
        anchor: Folder of the model whose other files it has.
        tokenizer: Folder of the model whose tokenizer it has.
        added: Tokens that are added to the tokenizer, in order, as its file describes them.
        template: Folder of the model whose chat template, special tokens and generation settings
            it has.
    """

    anchor: Path
    tokenizer: Path
    added: tuple[Mapping[str, Any], ...]
    template: Path

    @property
    def is_plain(self) -> bool:
        """Whether they are those of the anchor."""
        return not self.added and self.anchor == self.tokenizer == self.template

    def tokens(self) -> dict[str, int]:
        """Tell the ids of all tokens once those that are added have theirs."""
        return dict(self._extended().get_vocab(with_added_tokens=True))

    def folder(self, rows: Mapping[str, int]) -> Path:
        """Write the files, unless they are there.

        Args:
            rows: Of the merge, by token.

        Raises:
            CheckpointError: A special token of the template's model is none of the merge's.
        """
        if self.is_plain:
            return self.anchor
        name = self._digest(rows)
        if (place := cache_folder("tokenizers")) is not None:
            try:
                return self._kept(place / name, rows)
            except OSError as err:
                say_unusable(place, err)
        return self._kept(Path(_own_folder()) / name, rows)

    def _kept(self, out: Path, rows: Mapping[str, int]) -> Path:
        if out.is_dir():
            return out
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(mkdtemp(dir=out.parent))
        try:
            self._write(made, rows)
            made.rename(out)
        except OSError:
            if not out.is_dir():  # else another process was faster
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return out

    def config(self, config: Mapping[str, Any], rows: Mapping[str, int], n: int) -> dict[str, Any]:
        """Change the anchor's config: its vocabulary's size, and what tokens are special.

        Args:
            config: The anchor's.
            rows: Of the merge, by token.
            n: Rows in all.

        Raises:
            CheckpointError: See ``folder``.
        """
        special: dict[str, Any] = {}
        if not self.anchor == self.tokenizer == self.template:
            theirs = read_json(self.template / "config.json")
            settings = {**(theirs.get("text_config") or {}), **theirs}
            of_images = self._of_images(special_ids(config), rows)
            special = dict.fromkeys(special_ids(config)) | self._special(settings, rows) | of_images
        found = {**config, **special}
        if isinstance(text := config.get("text_config"), Mapping):
            inside = {key: value for key, value in special.items() if key in text}
            found["text_config"] = {**text, **inside, "vocab_size": n}
            return found if "vocab_size" not in config else {**found, "vocab_size": n}
        return {**found, "vocab_size": n}

    def _of_images(self, special: Mapping[str, Any], rows: Mapping[str, int]) -> dict[str, Any]:
        """Read the ids of tokens that stand for images and the like, which are the anchor's."""
        found = {key: ids for key, ids in special.items() if not key.startswith(_TEXT_TOKENS)}
        known = {key: ids for key, ids in found.items() if ids is not None}
        if self.anchor == self.tokenizer:
            return known
        return _renumbered(known, tokens_of(self.anchor), rows, self.anchor)

    def _special(self, settings: Mapping[str, Any], rows: Mapping[str, int]) -> dict[str, Any]:
        """Read the ids of special tokens from settings of the template's model, as the merge's."""
        known = {key: ids for key, ids in special_ids(settings).items() if ids is not None}
        found = {key: ids for key, ids in known.items() if key.startswith(_TEXT_TOKENS)}
        if self.template == self.tokenizer:
            return found
        return _renumbered(found, tokens_of(self.template), rows, self.template)

    def _digest(self, rows: Mapping[str, int]) -> str:
        folders = (self.anchor, self.tokenizer, self.template)
        files = [sorted(companion_files(folder).items()) for folder in folders]
        content = [[(name, fingerprint(file)) for name, file in some] for some in files]
        return digest_of(_FORMAT, content, [dict(token) for token in self.added], len(rows))

    def _write(self, out: Path, rows: Mapping[str, int]) -> None:
        for name, file in self._files():
            (out / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(file, out / name)
        if self.added:
            self._extended().save(str(out / _TOKENIZER))
        if self.template != self.tokenizer:
            self._write_template(out)
        if (settings := self.template / GENERATION).is_file():
            kept = read_json(settings)
            kept |= self._special(kept, rows)
            (out / GENERATION).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")

    def _files(self) -> Iterator[tuple[str, Path]]:
        """List what is copied: the tokenizer's files, the template's, and the anchor's others."""
        for name, file in companion_files(self.anchor).items():
            if not _is_any(name, (*TOKENIZER_FILES, *_TEMPLATES)):
                yield name, file
        for name, file in companion_files(self.tokenizer).items():
            if _is_any(name, TOKENIZER_FILES) and not _is_any(name, (*_TEMPLATES, GENERATION)):
                yield name, file
        for name, file in companion_files(self.template).items():
            if _is_any(name, _TEMPLATES):
                yield name, file

    def _write_template(self, out: Path) -> None:
        """Give a tokenizer the template and the special tokens of another one."""
        own, theirs = (_read(folder / _SETTINGS) for folder in (out, self.template))
        lent = ("chat_template", *_ROLES)
        kept = {key: value for key, value in own.items() if key not in lent}
        kept |= {key: theirs[key] for key in lent if key in theirs}
        (out / _SETTINGS).write_text(json.dumps(kept, indent=2, ensure_ascii=False), "utf-8")
        (out / _MAP).unlink(missing_ok=True)
        if (self.template / _MAP).is_file():
            shutil.copyfile(self.template / _MAP, out / _MAP)

    def _extended(self) -> Any:
        """Add the tokens; the library numbers them."""
        from tokenizers import AddedToken, Tokenizer

        found = Tokenizer.from_file(str(self.tokenizer / _TOKENIZER))
        for token in self.added:
            keys = ("single_word", "lstrip", "rstrip", "normalized", "special")
            settings = {key: token[key] for key in keys if key in token}
            found.add_tokens([AddedToken(token["content"], **settings)])
        return found


def _renumbered(
    special: Mapping[str, Any], lent: Mapping[str, int], rows: Mapping[str, int], folder: Path
) -> dict[str, Any]:
    """Give special tokens, known by a model's ids, the ids of the merge."""
    names = {row: token for token, row in lent.items()}
    found: dict[str, Any] = {}
    for key, value in special.items():
        ids = value if isinstance(value, list) else [value]
        unknown = [names.get(one, one) for one in ids if names.get(one) not in rows]
        if unknown:
            text = (
                f"expected the special tokens of {folder} among those of the merge, which takes "
                f"them from there; it has no {unknown[0]!r} ({key})"
            )
            hint = "take source: union, or the chat template of a model whose tokens it has"
            raise CheckpointError(Fault(("tokenizer", "chat_template"), text, hint))
        new = [rows[names[one]] for one in ids]
        found[key] = new if isinstance(value, list) else new[0]
    return found


def _read(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _is_any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


_made: list[TemporaryDirectory[str]] = []


def _own_folder() -> str:
    """Make a folder for this process, where no cache is kept."""
    if not _made:
        _made.append(TemporaryDirectory(prefix="evomerge-"))
        atexit.register(_made[0].cleanup)
    return os.path.join(_made[0].name, "tokenizers")
