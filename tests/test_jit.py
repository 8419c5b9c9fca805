"""The compile policy, the cache on disk and the pool of threads."""

import gc
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numba
import numpy as np
import pytest

from numbarnn import compiler, jit, kernel_cache
from numbarnn.jit import chunks, get_num_threads, njit, parallel_for, set_num_threads


@pytest.fixture(autouse=True)
def same_threads_afterwards():
    before = get_num_threads()
    yield
    set_num_threads(before)


def run_python(code, *, path=Path(jit.__file__).parents[1], timeout=120, **environment):
    """Run `code` in a fresh process that imports numbarnn from `path`; return what it printed."""
    hidden = {"NUMBARNN_CACHE_DIR", "NUMBA_CACHE_DIR", "NUMBARNN_NUM_THREADS", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"}
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [sys.executable, "-c", code],
        # No .pyc files: they are told apart by size and whole seconds, and an edit here may change neither.
        env={**inherited, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        cwd=path,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


# ------------------------------------------------------------------------------------------------------------- policy


def test_the_flags_of_the_policy():
    @njit
    def bare(x):
        return 1.0 / x

    @njit(error_model="python")
    def overridden(x):
        return 1.0 / x

    assert bare.targetoptions["nogil"] is True
    assert not bare.targetoptions.get("fastmath")
    assert bare(0.0) == np.inf
    with pytest.raises(ZeroDivisionError):
        overridden(0.0)


def test_cache_can_be_switched_off():
    @njit(cache=False)
    def half(x):
        return x / 2

    assert half(3.0) == 1.5
    assert half.stats.cache_path is None


@pytest.mark.parametrize("signature", ["float64(float64)", [numba.float64(numba.float64)], 3])
def test_explicit_signatures_are_refused(signature):
    with pytest.raises(TypeError, match="plain Python function"):
        njit(signature)


def test_without_jit_the_function_stays_itself(monkeypatch):
    def twice(x):
        return 2 * x

    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert njit(twice) is twice


def test_a_function_without_a_file_is_compiled():
    names = {}
    exec("def thrice(x):\n    return 3 * x", names)
    assert njit(names["thrice"])(2) == 6


def test_one_formula_gives_the_same_bits_in_two_surroundings():
    @njit(inline="always")
    def step(f, c, i, g):
        kept = f * c
        return kept, kept + i * g

    @njit
    def infer(f, c, i, g):
        return step(f, c, i, g)[1]

    @njit
    def train(f, c, i, g, tape):
        tape[0], state = step(f, c, i, g)
        return state

    gates = np.random.default_rng(0).standard_normal((500, 4)).astype(np.float32)
    tape = np.empty(1, np.float32)
    assert [infer(*row) for row in gates] == [train(*row, tape) for row in gates]


# -------------------------------------------------------------------------------------------------------------- cache

CALL = """
import json, sys, warnings
import numpy as np
from numbarnn.gemm import outer
value = float(outer(np.{dtype}(1)))
hits = sum(outer.stats.cache_hits.values())
print(json.dumps([value, hits, outer.stats.cache_path]))
"""


@pytest.fixture
def house(tmp_path):
    """A package of our name with the real jit.py and its helpers and two kernels, one calling the other."""
    package = tmp_path / "house" / "numbarnn"
    package.mkdir(parents=True)
    for module in (jit, compiler, kernel_cache):
        (package / Path(module.__file__).name).write_text(Path(module.__file__).read_text())
    (package / "__init__.py").write_text("")
    head = "from numbarnn.jit import njit\n"
    (package / "simd.py").write_text(head + "@njit\ndef inner(x):\n    return x * 10\n")
    (package / "gemm.py").write_text(
        head + "from numbarnn.simd import inner\n@njit\ndef outer(x):\n    return inner(x) + 1\n"
    )
    return package


def call(house, dtype="float64", **environment):
    out, _ = run_python(CALL.format(dtype=dtype), path=house.parent, **environment)
    return json.loads(out)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_second_process_finds_the_code_and_an_edit_elsewhere_is_seen(house, tmp_path):
    cache = str(tmp_path / "cache")
    first = call(house, NUMBARNN_CACHE_DIR=cache)
    assert first[:2] == [11, 0]
    assert call(house, NUMBARNN_CACHE_DIR=cache) == [11, 1, first[2]]
    edit(house / "simd.py", "x * 10", "x * 20")
    edited = call(house, NUMBARNN_CACHE_DIR=cache)
    assert edited[:2] == [21, 0]
    assert edited[2] != first[2]
    edit(house / "simd.py", "x * 20", "x * 10")
    moved = house.parent.rename(tmp_path / "moved") / "numbarnn"  # the code counts, not where it lies
    assert call(moved, NUMBARNN_CACHE_DIR=cache) == [11, 1, first[2]]


def test_where_the_cache_lies(house, tmp_path):
    ours, numbas, users = (str(tmp_path / name) for name in ("ours", "numbas", "users"))
    user = {"HOME": users, "XDG_CACHE_HOME": users, "LOCALAPPDATA": users}
    assert call(house, NUMBARNN_CACHE_DIR=ours, NUMBA_CACHE_DIR=numbas)[2].startswith(ours)
    assert call(house, NUMBA_CACHE_DIR=numbas)[2].startswith(numbas)
    assert call(house, **user)[2].startswith(str(house / "__pycache__"))
    assert [len(list(Path(folder).rglob("*outer*.nbc"))) for folder in (ours, numbas, house)] == [1, 1, 1]
    assert not Path(users).exists()


def test_a_package_that_cannot_be_written_uses_the_users_folder(house, tmp_path):
    users = str(tmp_path / "users")
    (house / "__pycache__").write_text("a file where the folder would be: not even root can write below it")
    user = {"HOME": users, "XDG_CACHE_HOME": users, "LOCALAPPDATA": users}
    assert call(house, **user)[:2] == [11, 0]
    assert call(house, **user)[:2] == [11, 1]
    assert len(list(Path(users).rglob("*outer*.nbc"))) == 1


def test_where_nothing_can_be_written_the_code_runs_and_says_so(house, tmp_path):
    (tmp_path / "file").write_text("")
    nowhere = str(tmp_path / "file" / "cache")
    out, err = run_python(CALL.format(dtype="float64"), path=house.parent, NUMBARNN_CACHE_DIR=nowhere)
    assert json.loads(out)[0] == 11
    assert "compiled code cannot be kept" in err and nowhere in err


def test_a_damaged_file_is_compiled_again(house, tmp_path):
    cache = str(tmp_path / "cache")
    call(house, NUMBARNN_CACHE_DIR=cache)
    (file,) = Path(cache).rglob("*outer*.nbc")
    file.write_bytes(file.read_bytes()[:500])
    out, err = run_python(CALL.format(dtype="float64"), path=house.parent, NUMBARNN_CACHE_DIR=cache)
    assert json.loads(out)[:2] == [11, 0]
    assert str(file) in err
    assert len(file.read_bytes()) > 500


def test_another_cpu_is_another_entry(house, tmp_path):
    cache = str(tmp_path / "cache")
    assert call(house, NUMBARNN_CACHE_DIR=cache)[1] == 0
    narrow = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    assert call(house, NUMBARNN_CACHE_DIR=cache, **narrow)[1] == 0
    assert call(house, NUMBARNN_CACHE_DIR=cache)[1] == 1


def test_an_image_finds_its_cache_in_another_place_at_another_time(house, tmp_path):
    assert call(house)[:2] == [11, 0]
    now = time.time()
    for times, age in enumerate((-3e8, 3e8)):  # layers of images carry any time, also one to come
        image = tmp_path / f"image{times}" / "numbarnn"
        shutil.copytree(house, image)
        for path in (image, *image.rglob("*")):
            os.utime(path, (now + age, now + age))
            path.chmod(0o555 if path.is_dir() else 0o444)
        files = sorted(image.rglob("*"))
        users = str(tmp_path / "users")
        user = {"HOME": users, "XDG_CACHE_HOME": users, "LOCALAPPDATA": users}
        assert call(image, **user)[:2] == [11, 1]
        assert sorted(image.rglob("*")) == files and not Path(users).exists()
        for path in (image, *image.rglob("*")):
            path.chmod(0o755)


READY = """
import sys
import numpy as np
from numbarnn.gemm import outer
assert outer(1.0) == 11
print("scipy.linalg" in sys.modules, "numba.np.arraymath" in sys.modules, sum(outer.stats.cache_hits.values()))
import numba
assert numba.njit(lambda x: np.linalg.inv(x)[0, 0] + outer(x[0, 0]))(2 * np.eye(2)) == 21.5
"""


@pytest.mark.skipif(sys.platform == "win32", reason="makes a symbolic link")
def test_what_is_stored_runs_without_what_numba_compiles_with(house, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(house.parent)
    for path, stored in ((house.parent, False), (house.parent, True), (link, True)):
        out, _ = run_python(READY, path=path, NUMBARNN_CACHE_DIR=str(tmp_path / "cache"))
        assert out.split() == [str(not stored), str(not stored), str(int(stored))]


TOLD = """
import logging, sys
logging.basicConfig(format="%(name)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stdout)
if {interactive}:
    sys.ps1 = ">>> "
from numbarnn import kernel_cache
kernel_cache.SILENT_SECONDS = 0
from numbarnn.gemm import outer
outer(1.0)
outer(1)
"""


@pytest.mark.parametrize("interactive", [True, False])
def test_who_waits_is_told_once(house, interactive):
    out, err = run_python(TOLD.format(interactive=interactive), path=house.parent)
    lines = [line for line in out.splitlines() if "compiled numbarnn.gemm.outer in" in line]
    assert len(lines) == 2 and all(line.startswith("numbarnn INFO") for line in lines)
    assert err.count("numbarnn: compiling kernels") == interactive


def test_kernels_compiled_within_others_count_once(monkeypatch, caplog):
    clock = iter([0.0, 1.0, 4.0, 6.0, 6.5, 10.0, 20.0, 25.0])
    monkeypatch.setattr(kernel_cache.time, "perf_counter", lambda: next(clock))
    progress = kernel_cache._Progress()
    outer = progress.begin()
    for name in ("inner", "other"):
        progress.end(progress.begin(), name)
    with caplog.at_level("INFO", logger="numbarnn"):
        progress.end(outer, "outer")
    progress.end(progress.begin(), "later")
    assert (progress.seconds, progress.kernels) == (10.0 + 5.0, 4)
    assert caplog.messages == ["compiled outer in 6.5 s"]


def test_processes_filling_one_cache_together(house, tmp_path):
    cache = str(tmp_path / "cache")
    results, threads = {}, []
    for i, dtype in enumerate(["float32", "float64", "int64", "float64"]):

        def work(i=i, dtype=dtype):
            results[i] = call(house, dtype, NUMBARNN_CACHE_DIR=cache)[0]

        threads.append(threading.Thread(target=work))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(4), 11)
    again = """
import numpy as np
from numbarnn.gemm import outer
print(*(outer(dtype(1)) for dtype in (np.float32, np.float64, np.int64)), sum(outer.stats.cache_hits.values()))
"""
    assert run_python(again, path=house.parent, NUMBARNN_CACHE_DIR=cache)[0].split() == ["11.0", "11.0", "11", "3"]
    assert not list(Path(cache).rglob("*.tmp"))


def test_importing_touches_no_cache_and_an_edit_under_a_running_process_is_not_stored(house, tmp_path):
    code = f"""
from pathlib import Path
import time
from numbarnn.gemm import outer
assert not Path({str(tmp_path / "cache")!r}).exists()
source = Path({str(house / "simd.py")!r})
time.sleep(0.05)
source.write_text(source.read_text().replace("x * 10", "x * 20"))
assert outer(1.0) == 11
"""
    cache = str(tmp_path / "cache")
    run_python(code, path=house.parent, NUMBARNN_CACHE_DIR=cache)
    assert call(house, NUMBARNN_CACHE_DIR=cache)[:2] == [21, 0]


USER = """
import json
import numba
from numbarnn.jit import njit
from numbarnn.gemm import outer

@numba.njit(cache=True)
def theirs(x):
    return outer(x) + 0.5

@njit
def ours(x):
    return outer(x) + 0.25

def main():
    print(json.dumps([[f(1.0), sum(f.stats.cache_hits.values())] for f in (theirs, ours)]))
"""


def test_a_users_own_functions_call_ours(house, tmp_path):
    (house.parent / "user.py").write_text(USER)
    caches = {"NUMBARNN_CACHE_DIR": str(tmp_path / "ours"), "NUMBA_CACHE_DIR": str(tmp_path / "theirs")}
    main = "import user; user.main()"
    assert json.loads(run_python(main, path=house.parent, **caches)[0]) == [[11.5, 0], [11.25, 0]]
    assert json.loads(run_python(main, path=house.parent, **caches)[0]) == [[11.5, 1], [11.25, 1]]
    edit(house / "simd.py", "x * 10", "x * 20")  # theirs keeps Numba's behaviour, ours notices
    assert json.loads(run_python(main, path=house.parent, **caches)[0])[1] == [21.25, 0]
    edit(house.parent / "user.py", "0.25", "0.75")
    assert json.loads(run_python(main, path=house.parent, **caches)[0])[1] == [21.75, 0]


TWINS = """
import json
from numbarnn.jit import njit

def reciprocal(x):
    return 1.0 / x

def scaled(factor):
    @njit
    def scale(x):
        return factor * x

    return scale

def main():
    numpys, pythons = njit(reciprocal), njit(error_model="python")(reciprocal)
    try:
        pythons(0.0)
    except ZeroDivisionError:
        print(numpys(0.0), scaled(2.0)(1.0), scaled(3.0)(1.0), sum(numpys.stats.cache_hits.values()))
"""


def test_options_and_closures_are_part_of_the_key(house):
    (house.parent / "twins.py").write_text(TWINS)
    for hits in (0, 1):
        out, _ = run_python("import twins; twins.main()", path=house.parent)
        assert out.split() == ["inf", "2.0", "3.0", str(hits)]


def test_recompile_empties_the_entry_first():
    @njit
    def once(x):
        return x + 1

    once(1)
    once.recompile()
    assert once(1) == 2
    assert sum(once.stats.cache_misses.values()) + sum(once.stats.cache_hits.values()) == 2
    assert sum(once.stats.cache_misses.values()) >= 1


def test_only_the_versions_used_last_are_kept(tmp_path):
    for i in range(kernel_cache.VERSIONS_KEPT + 3):
        folder = tmp_path / f"version{i}"
        folder.mkdir()
        (folder / "code.nbc").write_text("")
        os.utime(folder, (i, i))
    kernel_cache._prune(tmp_path)
    assert {folder.name for folder in tmp_path.iterdir()} == {
        f"version{i}" for i in range(3, kernel_cache.VERSIONS_KEPT + 3)
    }


# ------------------------------------------------------------------------------------------------------------ threads


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [0, 1, 2, 5, 7, 64, 101])
@pytest.mark.parametrize("grain", [1, 3, 64])
def test_chunks_cover_the_range_in_order(threads, n, grain):
    set_num_threads(threads)
    parts = chunks(n, grain)
    assert [i for start, stop in parts for i in range(start, stop)] == list(range(n))
    assert len(parts) <= threads
    sizes = [stop - start for start, stop in parts]
    if len(parts) > 1:
        assert min(sizes) >= grain
    if n:
        assert len(parts) >= 1 and max(sizes) - min(sizes) <= 1
    assert len(parts) == (0 if n == 0 else max(1, min(threads, n // grain)))


@pytest.mark.parametrize(("n", "grain"), [(-1, 1), (5, 0), (5, -2)])
def test_chunks_refuse_what_makes_no_sense(n, grain):
    with pytest.raises(ValueError, match="chunks"):
        chunks(n, grain)
    with pytest.raises(ValueError, match="chunks"):
        parallel_for(print, n, grain)


@njit
def mark(start, stop, counts, amount):
    for i in range(start, stop):
        counts[i] += amount


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_each_index_is_worked_on_once(threads):
    set_num_threads(threads)
    counts = np.zeros(1001)
    for _ in range(50):
        parallel_for(mark, len(counts), 1, counts, 2.0)
    assert (counts == 100).all()


def test_an_empty_range_calls_nothing_and_a_small_one_calls_once_without_the_pool(monkeypatch):
    set_num_threads(4)
    monkeypatch.setattr(jit, "_pool", None)
    calls = []
    parallel_for(lambda *args: calls.append(args), 0, 8)
    parallel_for(lambda *args: calls.append(args), 15, 8, "a")
    set_num_threads(1)
    parallel_for(lambda *args: calls.append(args), 1000, 8, "b")
    assert calls == [(0, 15, "a"), (0, 1000, "b")]


def test_chunks_run_side_by_side_and_the_first_on_the_calling_thread():
    set_num_threads(7)
    meeting = threading.Barrier(7, timeout=30)
    where = {}

    def chunk(start, stop):
        meeting.wait()
        where[start] = threading.current_thread()

    parallel_for(chunk, 7, 1)
    assert len(set(where.values())) == 7
    assert where[0] is threading.current_thread()
    assert all(where[i].daemon and where[i].name.startswith("numbarnn") for i in range(1, 7))


def test_threads_persist():
    set_num_threads(3)
    parallel_for(lambda start, stop: None, 3, 1)
    before = threading.active_count()
    for _ in range(20):
        parallel_for(lambda start, stop: None, 3, 1)
    assert threading.active_count() == before


@pytest.mark.parametrize("failing", [(0,), (2,), (1, 3), (0, 1, 2, 3)])
def test_the_first_failure_is_raised_once_all_are_done(failing):
    set_num_threads(4)
    done = []

    def chunk(start, stop):
        if start in failing:
            raise KeyError(start)
        time.sleep(0.02)
        done.append(start)

    with pytest.raises(KeyError) as caught:
        parallel_for(chunk, 4, 1)
    assert caught.value.args == (failing[0],)
    assert sorted(done) == [i for i in range(4) if i not in failing]
    parallel_for(mark, 4, 1, np.zeros(4), 1.0)  # the pool has survived


@pytest.mark.parametrize("fail", [False, True])
def test_nothing_is_kept_alive_after_the_call(fail):
    class Big:
        pass

    def chunk(start, stop, big):
        if fail:
            raise ValueError

    set_num_threads(3)
    big = Big()
    gone = weakref.ref(big)
    gc.disable()
    try:
        for _ in range(5):
            try:
                parallel_for(chunk, 3, 1, big)
            except ValueError:
                assert fail
        del big
        deadline = time.monotonic() + 10
        while gone() is not None and time.monotonic() < deadline:
            time.sleep(0.001)  # a helper may be on its way out of its last job
        assert gone() is None
    finally:
        gc.enable()


def test_many_callers_at_once():
    set_num_threads(3)
    failures = []

    def caller(seed):
        counts = np.zeros(97 + seed)
        for _ in range(100):
            parallel_for(mark, len(counts), 1, counts, 1.0)
        if not (counts == 100).all():
            failures.append(seed)

    callers = [threading.Thread(target=caller, args=(seed,)) for seed in range(6)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(60)
        assert not thread.is_alive()
    assert not failures


def test_a_caller_does_not_wait_for_a_busy_pool():
    set_num_threads(3)
    leave, inside = threading.Event(), threading.Semaphore(0)

    def occupy(start, stop):
        inside.release()
        assert leave.wait(60)

    occupier = threading.Thread(target=parallel_for, args=(occupy, 3, 1))
    occupier.start()
    for _ in range(3):
        assert inside.acquire(timeout=30)
    counts = np.zeros(30)
    parallel_for(mark, 30, 1, counts, 1.0)
    total, gone = counts.sum(), weakref.ref(counts)
    del counts
    assert gone() is None  # although nobody has looked at the offers yet
    assert occupier.is_alive()
    leave.set()
    occupier.join(60)
    assert total == 30


def test_calls_inside_chunks():
    set_num_threads(3)
    counts = np.zeros((3, 3, 50))

    def outer(start, stop):
        for i in range(start, stop):
            parallel_for(lambda a, b, i: [parallel_for(mark, 50, 1, counts[i, j], 1.0) for j in range(a, b)], 3, 1, i)

    for _ in range(20):
        parallel_for(outer, 3, 1)
    assert (counts == 20).all()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="sends a signal to one thread")
def test_ctrl_c_waits_for_the_chunks_that_write():
    set_num_threads(2)
    meeting, done = threading.Event(), []

    def chunk(start, stop):
        if start == 0:
            assert meeting.wait(30)
        else:
            meeting.set()
            for _ in range(3):
                time.sleep(0.03)
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.03)
            done.append(start)

    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            parallel_for(chunk, 2, 1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == [1]


def test_set_num_threads_checks_its_argument():
    for wrong in (1.0, "2", None, True, np.float32(3)):
        with pytest.raises(TypeError, match="set_num_threads: n must be an int"):
            set_num_threads(wrong)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"at least 1, got {wrong}"):
            set_num_threads(wrong)
    set_num_threads(np.int64(5))
    assert get_num_threads() == 5 and type(get_num_threads()) is int


def test_the_number_may_change_while_calls_run():
    stop = threading.Event()

    def change():
        while not stop.is_set():
            for n in (1, 2, 5, 3):
                set_num_threads(n)

    changer = threading.Thread(target=change)
    changer.start()
    counts = np.zeros(200)
    for _ in range(200):
        parallel_for(mark, 200, 1, counts, 1.0)
    stop.set()
    changer.join()
    assert (counts == 200).all()


def test_default_number_of_threads(monkeypatch):
    monkeypatch.delenv("NUMBARNN_NUM_THREADS", raising=False)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert jit._default_num_threads() == cpus
    monkeypatch.setenv("NUMBARNN_NUM_THREADS", "3")
    assert jit._default_num_threads() == 3
    for wrong in ("0", "-2", "many", "1.5"):
        monkeypatch.setenv("NUMBARNN_NUM_THREADS", wrong)
        with pytest.raises(ValueError, match=f"NUMBARNN_NUM_THREADS .*{wrong}"):
            jit._default_num_threads()


FORK = """
import os, signal, sys, threading, time
from numbarnn import teams
from numbarnn.jit import parallel_for, set_num_threads
set_num_threads(3)

def together():
    meeting = threading.Barrier(3, timeout=20)
    parallel_for(lambda start, stop: meeting.wait(), 3, 1)

together()
leave = threading.Event()
busy = threading.Thread(target=parallel_for, args=(lambda start, stop: leave.wait(20), 3, 1))
busy.start()          # the child is forked while the pool is at work
time.sleep(0.05)
with teams._trust._lock:  # as if another thread held it
    child = os.fork()
if child == 0:
    signal.alarm(30)
    together()
    assert teams._trust.ask()
    together()
    os._exit(7)
leave.set()
busy.join()
together()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_the_child_of_a_fork_has_threads_of_its_own(tmp_path):
    assert run_python(FORK, timeout=60)[0].strip() == "7"


EXIT = """
import atexit, time, threading
from numbarnn.jit import parallel_for, set_num_threads
set_num_threads(3)
begun = threading.Semaphore(0)

def slow(start, stop):
    begun.release()
    time.sleep(60)

@atexit.register
def last():
    set_num_threads(5)  # two threads more than there are
    parts = []
    parallel_for(lambda start, stop: parts.append(start), 5, 1)
    print(sorted(parts))

caller = threading.Thread(target=parallel_for, args=(slow, 3, 1), daemon=True)
caller.start()
for _ in range(3):
    begun.acquire()
"""


def test_the_process_ends_while_threads_are_at_work():
    began = time.monotonic()
    out, err = run_python(EXIT, timeout=50)
    assert out.strip() == "[0, 1, 2, 3, 4]"
    assert err == ""
    assert time.monotonic() - began < 30


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory in ways of their own")
def test_memory_that_a_step_frees_is_kept_for_the_next_one():
    code = """
import resource, numpy as np, numbarnn.jit
def step():
    for array in [np.empty(100_000, np.uint8) for _ in range(40)]:
        array[::1000] = 1
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    assert int(run_python(code)[0]) < 500  # 5 steps of 980 pages
