"""The reason of a failed pair is the compiler's own first error: what a person would look for in the log."""

from __future__ import annotations

import pytest

from pipeline.build.shared_layers import first_error

CONFTEST = " CONFTEST: pci_resize_resource"
COMPILER = "/build/nvidia/nvidia/nv-pci.c:275:13: error: too few arguments to function 'pci_resize_resource'"
MAKE = "make[3]: *** [scripts/Makefile.build:250: /build/nvidia/nvidia/nv-pci.o] Error 1"
DOCKER = "The command '/bin/sh -c make modules' returned a non-zero code: 2"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([CONFTEST, COMPILER, MAKE, DOCKER], COMPILER),
        (["make[2]: *** Waiting for unfinished jobs....", MAKE, COMPILER, DOCKER], COMPILER),
        (["conftest1.c:1:10: error: unknown type", COMPILER, DOCKER], COMPILER),
        (["  ERROR: modpost: GPL-incompatible module nvidia.ko uses GPL-only symbol '__rcu_read_lock'", MAKE], None),
        (["ERROR: Kernel configuration is invalid.", MAKE], None),
        (["nvidia.deb: FAILED", "sha256sum: WARNING: 1 computed checksum did NOT match", DOCKER], None),
        (["as: No space left on device", MAKE], None),
        ([CONFTEST, MAKE, DOCKER], MAKE),
        (["Step 3/9 : RUN true", "depmod: FATAL: something", DOCKER], "depmod: FATAL: something"),
        (["Step 3/9 : RUN make", " ---> Running in 1f2e", DOCKER], ""),
        ([], ""),
    ],
)
def test_the_compilers_first_error_else_makes_else_the_last_word(lines: list[str], reason: str | None) -> None:
    assert first_error(lines) == (lines[0].strip() if reason is None else reason)
