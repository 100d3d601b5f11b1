"""Files for from_pytorch.py: .safetensors, read and written here, and what torch.save wrote."""

import collections.abc
import ctypes
import json
import os
import struct
import sys
import tempfile

import torch

from pytorch_modules import ConversionError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
FLOATS = ("F64", "F32", "F16", "BF16")


def write_whole(path, write):
    """Replaces the file at path by what write(file) writes: into a temporary file, which is synced and renamed."""
    folder = os.path.dirname(os.path.abspath(path))
    fd, temporary = tempfile.mkstemp(dir=folder, prefix=".from_pytorch-", suffix=".tmp")
    try:
        with os.fdopen(fd, "wb") as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
        mask = os.umask(0)  # the only way to read it
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp's files are private
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if os.name == "posix":  # the name is durable too
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_safetensors(path, tensors, metadata):
    """Writes tensors by name. metadata is a dict of strings."""
    header, data, offset = {"__metadata__": metadata}, [], 0
    names = {dtype: name for name, dtype in DTYPES.items()}
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        if t.dtype not in names:
            raise ConversionError(f"{name} is {t.dtype}, want one of {', '.join(map(str, names))}")
        size = t.numel() * t.element_size()
        header[name] = {"dtype": names[t.dtype], "shape": list(t.shape), "data_offsets": [offset, offset + size]}
        data.append((t, size))
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def write(f):
        f.write(struct.pack("<Q", len(text)) + text)
        for t, size in data:
            f.write(ctypes.string_at(t.data_ptr(), size) if size else b"")

    if sys.byteorder != "little":
        raise ConversionError("this machine is big-endian; safetensors files are little-endian")
    write_whole(path, write)


def read_safetensors(path):
    """Returns the tensors by name, and the metadata."""
    with open(path, "rb") as f:
        content = bytearray(f.read())
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length].decode())
        metadata = header.pop("__metadata__", None) or {}
        tensors = {}
        for name, info in header.items():
            (start, end), dtype = info["data_offsets"], DTYPES[info["dtype"]]
            flat = torch.tensor([], dtype=dtype)
            if end > start:
                flat = torch.frombuffer(content[8 + length + start : 8 + length + end], dtype=dtype)
            tensors[name] = flat.reshape(info["shape"])
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as e:
        raise ConversionError(
            f"{path} is no safetensors file, or a damaged one: {type(e).__name__}: {str(e)[:200]}"
        ) from None
    return tensors, metadata


def is_state_dict(value):
    return (
        isinstance(value, collections.abc.Mapping)
        and len(value) > 0
        and all(isinstance(v, torch.Tensor) for v in value.values())
    )


def read_weights(path, key=None, trust=False):
    """Reads the state dict of a .safetensors or .pt file. key selects an entry of a checkpoint, "a.b" one inside
    another. trust unpickles whole modules, which runs code from the file."""
    if path.endswith(".safetensors"):
        return read_safetensors(path)[0]
    try:
        value = torch.load(path, map_location="cpu", weights_only=not trust)
    except OSError as e:
        raise ConversionError(f"{path}: {e.strerror}") from None
    except Exception as e:  # torch.load raises whatever the damaged pickle leads to
        hint = (
            ""
            if trust
            else "; if it holds a whole module and you trust it, --trust unpickles it, which runs code from the file"
        )
        raise ConversionError(
            f"{path} cannot be read as tensors ({str(e).strip().splitlines()[0][:200]}){hint}"
        ) from None
    for part in key.split(".") if key else ():
        if not isinstance(value, collections.abc.Mapping) or part not in value:
            raise ConversionError(f"{path} has no entry {key!r}; its entries are {entries(value)}")
        value = value[part]
    if isinstance(value, torch.nn.Module) or is_state_dict(value):
        return value
    if isinstance(value, collections.abc.Mapping):
        found = [k for k, v in value.items() if is_state_dict(v) and k not in ("optimizer", "optimizer_state_dict")]
        if len(found) == 1:
            return value[found[0]]
        raise ConversionError(
            f"{path} holds {len(found)} state dicts, want one: select it with --key; its entries are {entries(value)}"
        )
    raise ConversionError(f"{path} holds a {type(value).__name__}, want a state dict")


def entries(value):
    if not isinstance(value, collections.abc.Mapping):
        return f"none (it is a {type(value).__name__})"
    return ", ".join(repr(k) for k in list(value)[:10]) or "none"


def write_json(path, value):
    write_whole(path, lambda f: f.write(json.dumps(value, indent=2).encode() + b"\n"))


def json_argument(text):
    """A JSON object, or the file that holds one."""
    try:
        if not text.lstrip().startswith("{"):
            with open(text, encoding="utf-8") as f:
                text = f.read()
        value = json.loads(text)
    except OSError as e:
        raise ConversionError(f"{text}: {e.strerror}") from None
    except ValueError as e:
        raise ConversionError(f"this is no JSON: {text[:60]!r}: {e}") from None
    if not isinstance(value, dict):
        raise ConversionError(f"this is a JSON {type(value).__name__}, want an object: {text[:60]!r}")
    return value
