"""`mx.compile` without a C++ compiler: graphs are traced once and replayed, and nothing is fused into kernels."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx

# mlx::core::CompileMode.
NO_FUSE = 2
ENABLED = 3


def set_compile_mode(mode: int) -> None:
    """Set how MLX compiles; its Python interface has `enable_compile` and `disable_compile` alone."""
    (library,) = (Path(mx.__file__).parent / "lib").glob("libmlx.*")
    ctypes.CDLL(str(library))["_ZN3mlx4core16set_compile_modeENS0_11CompileModeE"](mode)


@contextmanager
def traced_graphs() -> Iterator[None]:
    """Replay graphs operation by operation: what a graph holds as a constant stays what it was when it was traced.

    Fused kernels of one update take a CPU's compiler half a minute. Compiling is on afterwards.
    """
    set_compile_mode(NO_FUSE)
    try:
        yield
    finally:
        set_compile_mode(ENABLED)
