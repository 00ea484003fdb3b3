"""Score rows with an ONNX model. The gate's evaluation and the server use this one class, so they cannot differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tidegate.errors import UsageError
from tidegate.registry.signature import DATATYPES, Signature, invalid, read_signature

MAX_MODEL_BYTES = 2 << 30
_OUTPUTS = ["label", "probabilities"]
Columns = Mapping[str, Any]


class Scorer:
    """A model in memory.

    Args:
        signature: what it takes and gives.
        session: its graph.
        tokenizer: for text.
    """

    def __init__(self, signature: Signature, session: Any, tokenizer: Any = None) -> None:
        self.signature, self._session, self._tokenizer = signature, session, tokenizer

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Scorer:
        """Load a model's folder.

        Args:
            folder: ``model.onnx``, ``signature.json``, perhaps ``tokenizer.json``; links are refused.
            threads: threads within one call.

        Raises:
            ModelRefused: it is no model, or its graph is not what its signature says (code ``model-invalid``).
        """
        signature = read_signature(folder)
        session = _session(folder / "model.onnx", threads)
        wanted = {"input_ids", "attention_mask"} if signature.tokenizer else {t.name for t in signature.inputs}
        found = {i.name for i in session.get_inputs()}
        if found != wanted:
            raise invalid(f"the graph takes {sorted(found)}, the signature says {sorted(wanted)}")
        if [o.name for o in session.get_outputs()] != ["label", "probabilities"]:
            raise invalid(f"the graph gives {[o.name for o in session.get_outputs()]}, not label and probabilities")
        return cls(signature, session, _tokenizer(folder, signature))

    def predict(self, columns: Columns) -> dict[str, np.ndarray[Any, Any]]:
        """Score rows.

        Args:
            columns: one array of shape ``[n]`` (or ``[n, 1]``) for each input of the signature.

        Returns:
            ``label`` ``[n]`` (values of ``classes``) and ``probabilities`` ``[n, K]``, float32.

        Raises:
            UsageError: a column is missing, unknown, of another length or datatype (code ``input-invalid``).
        """
        label, probabilities = self.run(self._checked(columns))
        return {"label": label, "probabilities": probabilities}

    def run(self, columns: Columns) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Score columns that were checked already: ``label`` ``[n]`` and ``probabilities`` ``[n, K]``, float32.

        Args:
            columns: one array of shape ``[n]`` for each input of the signature, of its datatype.
        """
        feed = self._tokens(columns["text"]) if self.signature.tokenizer else columns
        label, probabilities = self._session.run(_OUTPUTS, feed)
        return np.asarray(label).reshape(-1), np.asarray(probabilities, np.float32)

    def warm(self) -> None:
        """Score one row of nothing, so that the first request finds everything ready.

        Raises:
            ModelRefused: the graph cannot do it, or gives something else than its signature says.
        """
        row = {t.name: np.array([""], object) if t.datatype == "BYTES" else np.zeros(1, DATATYPES[t.datatype])
               for t in self.signature.inputs}  # fmt: skip
        try:
            label, probabilities = self.run(row)
        except Exception as e:  # onnxruntime's own exceptions share no base
            raise invalid(f"it cannot score a row: {str(e).splitlines()[0][:200]}") from e
        if label.shape != (1,) or probabilities.shape != (1, len(self.signature.classes)):
            raise invalid(f"a row gives {list(label.shape)} labels and {list(probabilities.shape)} probabilities")

    def _checked(self, columns: Columns) -> dict[str, np.ndarray[Any, Any]]:
        known = [t.name for t in self.signature.inputs]
        if set(columns) != set(known):
            odd = sorted(set(columns) ^ set(known))[0]
            how = "missing" if odd in known else "unknown"
            raise _input(f"the input {odd!r} is {how}", f"Exactly these inputs: {', '.join(known)}.")
        made = {t.name: _array(t.name, t.datatype, columns[t.name]) for t in self.signature.inputs}
        if len({len(v) for v in made.values()}) != 1:
            raise _input(
                f"the inputs have {sorted({len(v) for v in made.values()})} rows", "As many rows in each input."
            )
        if not len(next(iter(made.values()))):
            raise _input("there are no rows", "One row or more.")
        return made

    def _tokens(self, texts: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        encoded = self._tokenizer.encode_batch([str(t) for t in texts])
        ids = np.array([e.ids for e in encoded], np.int64)
        return {"input_ids": ids, "attention_mask": np.array([e.attention_mask for e in encoded], np.int64)}


def _session(path: Path, threads: int) -> Any:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_MODEL_BYTES:
        raise invalid("model.onnx is missing, a link, or too large")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    try:
        # from bytes: a graph cannot then name files beside it (external data)
        return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime's own exceptions share no base
        raise invalid(f"model.onnx is no graph: {str(e).splitlines()[0][:200]}") from e


def _tokenizer(folder: Path, signature: Signature) -> Any:
    if not signature.tokenizer:
        return None
    from tokenizers import Tokenizer

    try:
        made = Tokenizer.from_str((folder / signature.tokenizer.file).read_text(encoding="utf-8"))
    except Exception as e:  # tokenizers raises plain Exception
        raise invalid(f"{signature.tokenizer.file} is no tokenizer: {str(e)[:200]}") from e
    pad = made.token_to_id("[PAD]")
    made.enable_truncation(signature.tokenizer.max_length)
    made.enable_padding(pad_id=pad or 0, pad_token="[PAD]")
    return made


def _array(name: str, datatype: str, values: Any) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(values)
        array = array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array
        if datatype == "BYTES":
            made = np.array([v.decode() if isinstance(v, bytes) else v for v in array.tolist()], object)
            if not all(isinstance(v, str) for v in made):
                raise ValueError("not text")
        else:
            if array.dtype.kind not in "biuf":
                raise ValueError(f"values of type {array.dtype}")
            made = array.astype(DATATYPES[datatype], casting="same_kind" if array.dtype.kind == "f" else "unsafe")
            if array.dtype.kind in "iu" and not np.array_equal(made, array):
                raise ValueError("an integer out of range")
    except (ValueError, TypeError, OverflowError) as e:
        raise _input(f"the input {name!r} is no {datatype}: {e}", f"{datatype} values, one a row.") from e
    if made.ndim != 1:
        raise _input(f"the input {name!r} has the shape {list(made.shape)}", "One value a row.")
    return made


def _input(found: str, allowed: str) -> UsageError:
    return UsageError(found, allowed=allowed, code="input-invalid")
