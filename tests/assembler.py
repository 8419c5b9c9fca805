"""What the machine code of a GPU kernel holds, on a machine without a GPU: registers, spills, instructions, calls.

A kernel of `numbarnn.cuda` is compiled and assembled as it would be for its first launch, disassembled and examined::

    @pytest.mark.gpu
    @pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
    def test_it_fits(capability):
        z = np.empty((4, 3, 8), np.float32)        # only the types count
        code = check(forward, (z, None, np.int32(3)), capability, registers=64)
        assert code.count("HMMA") > 0

Needs ``pip install 'numbarnn[cuda,gpu-test]'``; `tests/gpu_rings.py` runs it.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

CAPABILITIES = ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))

# A division in full precision keeps its rare cases in a subroutine; nothing else may be called.
DIVISION = re.compile(r"__cuda_sm\d+x?_(div|rcp)_")
GRID_BARRIER = re.compile(r"cudaCG|__cuda_syscall_CGS")  # of the library with the barrier of a grid
# Instructions on float64 values; conversions name the type among their modifiers.
FLOAT64 = re.compile(r"D(ADD|MUL|FMA|SETP|MNMX|MMA)\b|.*\bF64\b|MUFU\.\w*64H")


class Instruction(NamedTuple):
    """One line of the disassembly: ``FFMA.RZ R0, R13, R9, R8`` has the operation ``FFMA.RZ``."""

    operation: str
    operands: str


class Code(NamedTuple):
    """What was found in the machine code of a kernel."""

    registers: int  # of each thread
    spills: int  # bytes that registers are saved to and loaded from
    local: int  # bytes of memory of each thread: arrays that did not fit registers
    shared: int  # bytes of static shared memory
    parameters: int
    instructions: list
    calls: list  # names of what is called

    def count(self, operation):
        """Count the instructions that begin with `operation`."""
        return sum(instruction.operation.startswith(operation) for instruction in self.instructions)

    def float64(self):
        """Return the instructions on float64 values."""
        return [f"{i.operation} {i.operands}" for i in self.instructions if FLOAT64.match(i.operation)]


def examine(kernel, args, capability):
    """Compile `kernel` for arguments of the types of `args` and return its `Code`."""
    compiled = kernel.compile(args, capability)
    text = disassemble(compiled.cubin)
    instructions = [
        Instruction(*match.groups())
        for match in re.finditer(r"/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);", text)
    ]
    called = [re.sub(r"[`()]", "", i.operands).split()[-1] for i in instructions if i.operation.startswith("CALL")]
    return Code(
        registers=max(map(int, re.findall(r"[Uu]sed (\d+) registers", compiled.log))),
        spills=sum(map(int, re.findall(r"(\d+) bytes spill", compiled.log))),
        local=max(map(int, re.findall(r"(\d+) bytes (?:lmem|stack frame)", compiled.log)), default=0),
        shared=max(map(int, re.findall(r"(\d+) bytes smem", compiled.log)), default=0),
        parameters=len(re.findall(r"\.param ", compiled.ptx.partition(".entry")[2].partition(")")[0])),
        instructions=instructions,
        calls=[name for name in called if not name.startswith(".L_x_")],  # older assemblers leave loops by a "call"
    )


def check(kernel, args, capability, *, registers, local=0, float64=False, divides=True, grid_barrier=False):
    """Assert what must hold for every kernel; return its `Code` for what must hold for this one.

    Parameters
    ----------
    kernel : numbarnn.cuda.Kernel
    args : sequence
        As given to `launch`, of any size.
    capability : (int, int)
    registers : int
        A thread may have so many, at most.
    local : int
        Bytes of local memory that a thread may have: of arrays that are indexed at run time.
    float64 : bool
        Whether the kernel computes in float64.
    divides : bool
        Whether it divides in full precision, which has a subroutine.
    grid_barrier : bool
        Whether its blocks wait for one another by ``cuda.cg.this_grid().sync()``, which is a call too.
    """
    code = examine(kernel, args, capability)
    where = f"{kernel.__module__}.{kernel.__qualname__} for {capability}"
    assert len(code.instructions) > 10, f"{where}: no machine code was found"
    assert code.registers <= registers, f"{where}: {code.registers} registers"
    assert code.spills == 0, f"{where}: {code.spills} bytes of registers are spilled"
    assert code.local <= local, f"{where}: {code.local} bytes of local memory"
    known = [pattern for pattern, wanted in ((DIVISION, divides), (GRID_BARRIER, grid_barrier)) if wanted]
    strange = [name for name in code.calls if not any(pattern.search(name) for pattern in known)]
    assert not strange, f"{where} calls {strange}"
    found = code.float64()
    assert bool(found) == float64, f"{where}: float64 instructions {found[:5]}"
    return code


def disassemble(cubin):
    """Return the text of machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([_nvdisasm(), "-c", file.name], capture_output=True, text=True, check=True).stdout


def _nvdisasm():
    import nvidia

    for folder in map(Path, nvidia.__path__):
        for program in folder.glob("*/bin/nvdisasm"):
            return str(program)
    found = shutil.which("nvdisasm")
    assert found, "the compile ring needs nvdisasm: pip install nvidia-cuda-nvdisasm"
    return found
