"""Every method on every picture: what is in the cache is taken from there, the rest is spread over the cores.

A network on a CPU works in several processes, one picture and few threads each, which keeps the cores busier
than many threads on one picture do, and reads and scores in between. On a GPU it stays in this process, and
the others score what it has restored.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from unsmear.errors import EvaluationError, UnsmearError
from unsmear.evaluation.benchmarks import Benchmark, Case
from unsmear.evaluation.layouts import PairFiles
from unsmear.evaluation.protocols import Protocol
from unsmear.evaluation.restorers import find_restorer, match_results
from unsmear.evaluation.tables.cache import Cache, code_sha256, key_of
from unsmear.evaluation.tables.methods import Method
from unsmear.models.restoring import find_device
from unsmear.photo import Photo, read_photo, write_photo


@dataclass(frozen=True)
class TestSet:
    """A benchmark at a place, its cases, and the protocols that score them."""

    __test__ = False  # pytest: not a class of tests

    benchmark: Benchmark
    root: Path
    choice: dict[str, Any]
    cases: tuple[Case, ...]
    protocols: tuple[Protocol, ...]


@dataclass(frozen=True)
class Result:
    """One method on one case.

    scores: by the name of the protocol and the name of the metric.
    seconds: wall time of restoring, None where nothing was run; processor: time of the processor, on a CPU.
    restored: the file that was scored, and its hash.
    """

    method: str
    benchmark: str
    case: Case
    scores: dict[str, dict[str, float]]
    seconds: float | None
    processor: float | None
    restored: Path
    sha256: str


@dataclass(frozen=True)
class Failed:
    """A picture that was not scored, and why."""

    benchmark: str
    case: str
    method: str
    reason: str


@dataclass
class Results:
    """Everything that was found.

    by_place: results by (method, benchmark, case).
    digests: SHA-256 of each file that was read, where it could be.
    timing: how the seconds were taken.
    """

    methods: list[Method]
    sets: list[TestSet]
    by_place: dict[tuple[str, str, str], Result] = field(default_factory=dict)
    failures: list[Failed] = field(default_factory=list)
    digests: dict[Path, str] = field(default_factory=dict)
    timing: dict[str, Any] = field(default_factory=dict)

    def of(self, method: str, benchmark: str) -> list[Result]:
        """Results of a method on a benchmark, in the order of its cases."""
        cases = next(one.cases for one in self.sets if one.benchmark.name == benchmark)
        places = ((method, benchmark, case.name) for case in cases)
        return [self.by_place[place] for place in places if place in self.by_place]


@dataclass(frozen=True)
class Job:
    """One method on one case, for a worker.

    network: what restores, and where; None where `restored` is there already.
    restored: the picture to score, or where the restored one goes.
    """

    method: str
    benchmark: str
    case: Case
    network: tuple[str, str] | None
    key: str
    restored: Path
    protocols: tuple[Protocol, ...]


@dataclass(frozen=True)
class Done:
    """What a worker found: scores by protocol, and for a network the time and the hash of what it wrote."""

    scores: dict[str, dict[str, float]]
    record: dict[str, Any] | None = None


def run(
    methods: Sequence[Method],
    sets: Sequence[TestSet],
    cache: Cache,
    *,
    workers: int = 1,
    device: str = "auto",
    progress: bool = False,
) -> Results:
    """Score every method on every case of every set, with each of its protocols.

    A picture that cannot be read, restored or scored is named in `failures` and the rest is done.

    Raises:
        EvaluationError: a worker process died, most likely for want of memory.
    """
    place = find_device(device)
    threads = max(1, torch.get_num_threads() // workers) if place.type == "cpu" else 1
    results = Results(list(methods), list(sets))
    results.timing = {"device": str(place), "processes": workers if place.type == "cpu" else 1}
    results.timing["threads"] = threads if place.type == "cpu" else torch.get_num_threads()
    matched = {
        (method.label, one.benchmark.name): match_results(Path(method.source), _pairs(one.cases))
        for method in methods
        if method.kind == "folder"
        for one in sets
    }
    results.digests = _digests(sets, matched, cache, workers, progress)
    jobs: list[tuple[Job, dict[str, dict[str, float]]]] = []
    for method in methods:
        for one in sets:
            for case in one.cases:
                step = _plan(method, one, case, matched, results, cache, place)
                if step is not None:
                    jobs.append(step)
    total = sum(len(one.cases) for one in sets) * len(methods)
    bar = tqdm(
        total=total,
        initial=total - len(jobs),
        desc="scoring",
        unit="picture",
        disable=None if progress else True,
    )
    with bar:
        for (job, known), outcome in _work_off(jobs, workers, threads, place):
            if isinstance(outcome, Failed):
                results.failures.append(outcome)
            else:
                _keep(job, known, outcome, results, cache)
            bar.set_postfix_str(f"{job.method} on {job.benchmark}, {len(results.failures)} failed")
            bar.update()
    return results


def _pairs(cases: Sequence[Case]) -> list[PairFiles]:
    return [
        PairFiles(case.name, case.blurred, case.truth[0] if case.truth else case.blurred) for case in cases
    ]


def _digests(
    sets: Sequence[TestSet],
    matched: dict[tuple[str, str], dict[Path, Path]],
    cache: Cache,
    threads: int,
    progress: bool,
) -> dict[Path, str]:
    """Hashes of all files that there are to read."""
    files = [file for one in sets for case in one.cases for file in (case.blurred, *case.truth)]
    files += [file for found in matched.values() for file in found.values()]
    files = list(dict.fromkeys(files))
    with tqdm(total=len(files), desc="hashing", unit="file", disable=None if progress else True) as bar:
        return cache.sha256_of(files, threads=threads, progress=bar.update)


def _plan(
    method: Method,
    one: TestSet,
    case: Case,
    matched: dict[tuple[str, str], dict[Path, Path]],
    results: Results,
    cache: Cache,
    place: torch.device,
) -> tuple[Job, dict[str, dict[str, float]]] | None:
    """The job that is left to do with the scores that are known; None where there is none."""
    name, digests = one.benchmark.name, results.digests
    job = Job(method.label, name, case, None, "", case.blurred, ())
    lost = [str(file) for file in (case.blurred, *case.truth) if file not in digests]
    if lost:
        results.failures.append(Failed(name, case.name, method.label, f"cannot read {', '.join(lost[:3])}"))
        return None
    if method.kind == "folder":
        found = matched[method.label, name].get(case.blurred)
        if found is None or found not in digests:
            reason = (
                f"no restored picture in {method.source} has a name that fits {case.blurred}"
                if found is None
                else f"cannot read {found}"
            )
            results.failures.append(Failed(name, case.name, method.label, reason))
            return None
        job = replace(job, restored=found)
    sha256 = digests.get(job.restored, "")
    record: dict[str, Any] = {}
    if method.kind == "network":
        key = key_of(
            weights=method.about["weights_sha256"], network=method.about["network"], device=place.type,
            blurred=digests[case.blurred], precision="fp32", code=code_sha256(), torch=torch.__version__,
            processor=torch.backends.cpu.get_cpu_capability(),
        )  # fmt: skip
        job = replace(job, key=key, restored=cache.picture(key))
        record = cache.get(key) or {}
        if not record:
            return replace(job, network=(method.source, str(place)), protocols=one.protocols), {}
        sha256 = record["sha256"]
        if not job.restored.exists():
            job = replace(job, network=(method.source, str(place)))
    known: dict[str, dict[str, float]] = {}
    for protocol in one.protocols:
        scores = cache.get(_score_key(sha256, case, protocol, digests))
        if scores is not None:
            known[protocol.name] = scores
    if len(known) < len(one.protocols) or job.network is not None:
        left = tuple(protocol for protocol in one.protocols if protocol.name not in known)
        return replace(job, protocols=left), known
    _file(results, job, known, record, sha256)
    return None


def _score_key(restored: str, case: Case, protocol: Protocol, digests: dict[Path, str]) -> str:
    return key_of(
        restored=restored, case=case.name, truth=[digests[file] for file in case.truth],
        blurred=digests[case.blurred], protocol=protocol.name, settings=protocol.settings(),
        code=code_sha256(), torch=torch.__version__,
    )  # fmt: skip


def _keep(job: Job, known: dict[str, dict[str, float]], done: Done, results: Results, cache: Cache) -> None:
    """Put what a worker found into the cache and the results."""
    if done.record is not None:
        cache.put(job.key, done.record)
    record = done.record or (cache.get(job.key) if job.key else None) or {}
    sha256 = record.get("sha256") or results.digests[job.restored]
    for protocol in job.protocols:
        cache.put(_score_key(sha256, job.case, protocol, results.digests), done.scores[protocol.name])
    _file(results, job, {**known, **done.scores}, record, sha256)


def _file(
    results: Results, job: Job, scores: dict[str, dict[str, float]], record: dict[str, Any], sha256: str
) -> None:
    """Put a result into its place."""
    seconds = record.get("seconds"), record.get("processor_seconds")
    results.by_place[job.method, job.benchmark, job.case.name] = Result(
        job.method, job.benchmark, job.case, scores, *seconds, job.restored, sha256
    )


# The work


Step = tuple[Job, dict[str, dict[str, float]]]


def _work_off(
    jobs: Sequence[Step], workers: int, threads: int, place: torch.device
) -> Iterator[tuple[Step, Done | Failed]]:
    """Do the jobs, in this process or in others, and yield each with what came of it as it is done."""
    if not jobs:
        return
    if workers <= 1:
        for step in jobs:
            yield step, work(step[0])
        return
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(threads,)
    )
    futures: dict[Future[Done | Failed], Step] = {}
    try:
        for step in jobs:
            job = step[0]
            if job.network is None or place.type == "cpu":
                futures[pool.submit(work, job)] = step
                continue
            outcome = work(replace(job, protocols=()))  # one process has the GPU
            if isinstance(outcome, Failed):
                yield step, outcome
            else:
                futures[pool.submit(_score_restored, replace(job, network=None), outcome)] = step
            for future in [future for future in futures if future.done()]:
                yield futures.pop(future), future.result()
        for future in as_completed(futures):
            yield futures.pop(future), future.result()
    except BrokenProcessPool as error:
        raise EvaluationError(
            "A worker process died, most likely for want of memory. What was done is kept: the same command "
            "with fewer workers goes on."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(threads: int) -> None:
    """Prepare a worker process, and end it when the main process is killed."""
    from unsmear.runtime import end_with_parent, prepare_process

    prepare_process()
    torch.set_num_threads(threads)
    end_with_parent()


def _score_restored(job: Job, restored: Done) -> Done | Failed:
    """Score what the main process has restored on the GPU."""
    outcome = work(job)
    return replace(outcome, record=restored.record) if isinstance(outcome, Done) else outcome


def work(job: Job) -> Done | Failed:
    """Restore, if a network is to, and score with each protocol."""
    try:
        blurred = read_photo(job.case.blurred)
        record = None if job.network is None else _restore(job, blurred)
        restored = read_photo(job.restored)
        if (restored.height, restored.width) != (blurred.height, blurred.width):
            raise EvaluationError(
                f"{job.restored} is {restored.width}×{restored.height}, the blurred {job.case.blurred} is "
                f"{blurred.width}×{blurred.height}; expected the same size"
            )
        scores: dict[str, dict[str, float]] = {}
        tensor = restored.tensor()
        for protocol in job.protocols:
            scores[protocol.name] = {
                name: float(value) for name, value in protocol.score(tensor, job.case).items()
            }
        return Done(scores, record)
    except UnsmearError as error:
        return Failed(job.benchmark, job.case.name, job.method, str(error))
    except Exception as error:  # whatever a network or somebody's own protocol raises costs one picture
        return Failed(job.benchmark, job.case.name, job.method, f"{type(error).__name__}: {error}")


def _restore(job: Job, blurred: Photo) -> dict[str, Any]:
    """Let the network of a job restore, write the picture as PNG, and say how long it took."""
    from unsmear.evaluation.tables.cache import _sha256

    assert job.network is not None
    restorer = _network(*job.network)
    image = blurred.tensor()
    start = time.perf_counter(), time.process_time()
    output = restorer.run(PairFiles(job.case.name, job.case.blurred, job.case.blurred), image)
    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    if output.shape != image.shape or not output.isfinite().all():
        raise EvaluationError(
            f"the network gave a picture of shape {tuple(output.shape)} for one of {tuple(image.shape)}"
            if output.shape != image.shape
            else "the restored picture holds NaN or infinity"
        )
    job.restored.parent.mkdir(parents=True, exist_ok=True)
    plain = replace(blurred, metadata={})  # EXIF and profile say nothing about the pixels that are scored
    write_photo(plain.with_tensor(output), job.restored, overwrite=True)
    return {
        "sha256": _sha256(job.restored),
        "seconds": seconds[0],
        "processor_seconds": seconds[1] if job.network[1] == "cpu" else None,
        "threads": torch.get_num_threads(),
        "device": job.network[1],
        "pixels": blurred.width * blurred.height,
    }


@lru_cache(maxsize=1)
def _network(source: str, device: str) -> Any:
    return find_restorer(source, [], device=device)
