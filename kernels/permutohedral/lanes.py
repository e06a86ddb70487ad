"""Rows of LANES float32 as one value inside Numba's compiled functions.

LLVM keeps such a value in a vector register; a loop over the lanes would compile to one instruction
a lane, several times slower. Each operation rounds once, without fused multiply-add, so that results
depend neither on the processor nor on the split of the work.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model

LANES = 4

_FLOAT = ir.FloatType()
_REGISTER = ir.VectorType(_FLOAT, LANES)
_SPREAD = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"Lanes{LANES}")


_LANES_TYPE = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, front_type: _Lanes) -> None:
        super().__init__(manager, front_type, _REGISTER)  # type: ignore[no-untyped-call]


def _is_table(array: Any) -> bool:
    return (
        isinstance(array, types.Array)
        and array.dtype == types.float32
        and array.ndim == 2
        and array.layout == "C"
    )


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Return the pointer to a row; unlike Numba's indexing, without negative rows."""
    table = context.make_array(signature.args[0])(context, builder, arguments[0])
    row = context.cast(builder, arguments[1], signature.args[1], types.uint64)
    return builder.gep(builder.bitcast(table.data, _REGISTER.as_pointer()), [row])


def _load(_typing: Any, table: Any, row: Any) -> Any:
    """Read a row of a contiguous (rows, LANES) float32 array; the index is not checked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(_pointer(context, builder, signature, arguments))
        value.align = 4
        return value

    return (_LANES_TYPE(table, row), generate) if _is_table(table) else None


def _store(_typing: Any, table: Any, row: Any, value: Any) -> Any:
    """Write a row of a contiguous (rows, LANES) float32 array; the index is not checked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        written = builder.store(arguments[2], _pointer(context, builder, signature, arguments))
        written.align = 4
        return context.get_dummy_value()

    return (types.void(table, row, value), generate) if _is_table(table) else None


def _zero(_typing: Any) -> Any:
    """Return zero in all lanes."""

    def generate(_context: Any, _builder: Any, _signature: Any, _arguments: Any) -> Any:
        return ir.Constant(_REGISTER, [0.0] * LANES)

    return _LANES_TYPE(), generate


def _plus(_typing: Any, first: Any, second: Any) -> Any:
    """Return first + second, lane by lane."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments)

    return _LANES_TYPE(first, second), generate


def _plus_scaled(_typing: Any, first: Any, scale: Any, second: Any) -> Any:
    """Return first + scale * second, lane by lane, for one float32 scale."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        first, scale, second = arguments
        lone = builder.insert_element(
            ir.Constant(_REGISTER, ir.Undefined), scale, ir.Constant(ir.IntType(32), 0)
        )
        scales = builder.shuffle_vector(lone, ir.Constant(_REGISTER, ir.Undefined), _SPREAD)
        return builder.fadd(first, builder.fmul(scales, second))

    return _LANES_TYPE(first, types.float32, second), generate


# `intrinsic` changes the signatures: the annotations above are those of the code generators.
load: Any = intrinsic(_load)
store: Any = intrinsic(_store)
zero: Any = intrinsic(_zero)
plus: Any = intrinsic(_plus)
plus_scaled: Any = intrinsic(_plus_scaled)
