"""Messages in the words of the command line: options in the place of Python's arguments.

The package writes messages for callers of Python. What a message says otherwise to a user of the command line, it has
as `ColPaliError.command`; names of options are translated here, for everything that is printed.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import fields

from colpali_integrations.cli.model_options import CheckpointOptions
from colpali_integrations.errors import ColPaliError

__all__ = ["OPTIONS", "in_commands", "message", "reason"]

OPTIONS = (
    *(one.name for one in fields(CheckpointOptions)),
    *("batch_size", "datatype", "document_id", "dpi", "exclude", "first_stage", "language", "max_pixels", "parallel"),
    "pool_factor",
)
"""Arguments of Python that are options of the same name."""

_VALUE = r"(?:'[^']*'|\"[^\"]*\"|\[[^\]]*\]|[\w.-]*\w)?"
_ARGUMENT = re.compile(rf"\b({'|'.join(OPTIONS)})=({_VALUE})")
# Arguments that are options of other names, or none.
_OTHERS = (
    (r"password=(?:\.\.\.)?", "--password-file FILE"),
    (r", or pass api_key_file=", ""),
    (r"write the key of a server to a file and pass api_key_file=, or set", "set"),
    (r"isolate=False", "--no-isolate"),
    (r"force=True \(--force\)", "--force"),
    (r"image_formats=\['[^']*'\] \((--image-format \S+)\)", r"\1"),
    (r"local_files_only=True", "offline"),
    (r"pass local_dir= with a folder that holds (it|the files)", r"name a folder that holds \1 by --model"),
    (r"by cache_dir= or (\S+)", r"by \1"),
    (
        r"repair the store with its settings: repair_store\([^)]*\)\), or restore it from a backup",
        "restore it from a backup, or index its documents into another folder",
    ),
    (r", or pass lazy_load=True where only the other side of the model is used", ""),
    (r", and providers=\[[^\]]*\] chooses it without this warning", ""),
    (r"roots=\[folder\]", "--root DIR"),
    (r"pass hybrid=False", "pass --no-hybrid"),
    (
        r"Open the store again with indexes=\{field: kind\}, such as indexes=(\{'year': 'number'\})",
        r'Add "indexes" to its file, such as \1',
    ),
    (r"Open the store with indexes=\{('[^']*'): \.\.\.\}", r'Add "indexes" with \1 to its file'),
    (r"indexes=(\{'year': 'number'\}) makes the indexes", r'"indexes" in its file, such as \1, makes the indexes'),
    (r"out of indexes=", 'out of "indexes"'),
    (r"collection_name=", "collection_name "),
    (r"with mode='two_stage' or 'auto'", "in two stages"),
    (r" \(path=\)", ""),
    (r"pass writable=True", 'add "writable": true to its file'),
    (r"give it as api_key=", "set QDRANT_API_KEY to it"),
    (r"by api_key=", "in QDRANT_API_KEY"),
    (r"by timeout= \(seconds\)", 'by "timeout", in seconds, in the "options" of its file'),
    (r" \(QdrantClient\.\w+\)", ""),
    (r"\(copy_store\)", "(colpali-integrations copy)"),
    (r"the folders of roots=\[[^\]]*\]", "the folders of --root"),
    (r"pass where=\{'\$id': \{'\$exists': True\}\}", """pass --filter '{"$id": {"$exists": true}}'"""),
)
_FROM_PRETRAINED = re.compile(r"ColPali\.from_pretrained\(('[^']*'|\"[^\"]*\")(?:, )?([^()]*)\)")


def in_commands(text: str) -> str:
    """Translate a message.

    >>> in_commands("pass precision='float32' or base=")
    'pass --precision float32 or --base'
    >>> in_commands("open the model with ColPali.from_pretrained('my-model', precision='int8', max_side=64)")
    'open the model with --model my-model --precision int8 --max-side 64'
    """
    text = _FROM_PRETRAINED.sub(_model, text)
    for pattern, replacement in _OTHERS:
        text = re.sub(pattern, replacement, text)
    return _ARGUMENT.sub(_option, text)


def message(error: BaseException) -> str:
    """The message of an error."""
    if not isinstance(error, ColPaliError) or error.command is None:
        return in_commands(str(error))
    return error.command


def reason(error: ColPaliError) -> str:
    """The message of an error about an item, without the item's position."""
    return error.command or in_commands(str(error.args[0]) if error.args else str(error))


def _model(match: re.Match[str]) -> str:
    name, options = match.groups()
    return " ".join([f"--model {shlex.quote(name[1:-1])}", *(options.split(", ") if options else ())])


def _option(match: re.Match[str]) -> str:
    name, value = match.groups()
    option = f"--{name.replace('_', '-')}"
    values = re.findall(r"'([^']*)'", value) if value.startswith("[") else [value.strip("'\"")]
    return " ".join(option if one == "True" else f"{option} {one}".strip() for one in values)
