"""Fetch the Light My Cells data set from the BioImage Archive, in the challenge's layout.

Exit code: 0 everything that was chosen is there; 1 some files are not; 2 nothing was begun; 130 interrupted.
"""

import argparse
import logging
import shutil
import sys
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from tqdm import tqdm
from urllib3.util import Retry

from model.commands import (
    DONE,
    INTERRUPTED,
    NOT_BEGUN,
    SOME_FAILED,
    log_to_standard_streams,
    one_sentence,
    whole_number,
)
from model.errors import UserError
from model.labels import Modality
from model.naming import InputName
from training.archive import ARCHIVE, STUDIES, Choice, FileLists, ListedFile, read_file_list, read_names
from training.exclusive import one_at_a_time
from training.index import MOST_LISTED
from training.transfer import RETRY, Client, RefusedError, TransferError, partial_path

LISTS_RETRIED = 3
"""Before anything has arrived, a server that does not answer is tried no more often."""

FAILURES_IN_A_ROW = 10
"""After so many files without an answer the server or the network is down, and the rest is not tried."""

EPILOG = f"""\
Written: Study_K/image_N_BF_z0.ome.tiff and so on, and the archive's lists (FileList/Study_K.json). The same command
goes on after any interruption and fetches only what is missing. A file is whole or absent. The archive publishes no
checksums: each file has the size that the archive's list and the server state. Files: {ARCHIVE}
"""

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None, retry: Retry = RETRY) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str or None
        None: those of the process.
    retry : Retry
        How often, and after which waits, a file is tried again.

    Returns
    -------
    int
        The exit code.
    """
    log_to_standard_streams("training")
    options = _parser().parse_args(arguments)
    try:
        names = read_names(options.file_list) if options.file_list else None
        choice = Choice(dict.fromkeys(options.study), options.modality, names)
        with one_at_a_time(options.output, "download"):
            return _download(choice, options, retry)
    except KeyboardInterrupt:
        log.error("Interrupted. What has arrived stays: the same command goes on.")
        return INTERRUPTED
    except Exception as error:
        log.error(one_sentence(error))
    return NOT_BEGUN


def _download(choice: Choice, options: argparse.Namespace, retry: Retry) -> int:
    stopped = threading.Event()
    client = Client(options.workers, stopped.wait)
    lists = _read_lists(client, options.url, options.output, choice.studies, retry)
    missing = _plan(lists, choice, options.output)
    absent = choice.absent(lists)
    _warn(absent, "%s: found no single entry in the archive's lists, expected one.")
    if options.dry_run:
        return DONE
    _require_space(options.output, missing)
    client.received, begun = 0, time.monotonic()
    jobs = {f"{options.url}/{quote(file.path)}": file for file in missing}
    fetched = _fetch_all(client, jobs, options.output, options.workers, retry, stopped)
    log.info(
        "Fetched %d of %d files, %s of images, %s received, in %s.",
        len(fetched),
        len(missing),
        _bytes(_size(fetched)),
        _bytes(client.received),
        tqdm.format_interval(time.monotonic() - begun),
    )
    if len(fetched) < len(missing):
        log.error("Not there: %d. The same command tries them again.", len(missing) - len(fetched))
    return DONE if len(fetched) == len(missing) and not absent else SOME_FAILED


def _read_lists(client: Client, url: str, output: Path, studies: Collection[int], retry: Retry) -> FileLists:
    """The archive's lists of the studies; those that were fetched before are read from the output folder."""
    retry = retry.new(total=min(LISTS_RETRIED, retry.total or 0))
    lists = FileLists()
    for study in tqdm(studies, desc="File lists", unit="study", file=sys.stdout, disable=None):
        name = f"FileList/Study_{study}.json"
        path = output / name
        known = path.exists()
        if not known:
            client.fetch(f"{url}/{name}", path, retry=retry)
        try:
            lists += read_file_list(path, study)
        except UserError:
            if not known:  # such as a web page that reports an error: not to be kept
                path.unlink()
            raise
    return lists


def _plan(lists: FileLists, choice: Choice, output: Path) -> list[ListedFile]:
    """Say what was chosen and what of it is there; returns what is missing."""
    wanted = choice.select(lists.files)
    if not wanted:
        raise UserError(f"{output}: found no listed file that was chosen, expected one at least.")
    for study, group in groupby(wanted, lambda file: file.study):
        files = list(group)
        modalities = sorted({file.name.modality for file in files if isinstance(file.name, InputName)})
        title = f"Study_{study}"
        log.info("%-8s  %-7s  %6d files  %s", title, " ".join(modalities), len(files), _bytes(_size(files)))
    if lists.duplicates:
        log.info("Listed twice, fetched once: %d, such as %s.", len(lists.duplicates), lists.duplicates[0])
    if lists.others:
        log.info("Listed, but no images of the challenge: %d, such as %s.", len(lists.others), lists.others[0])
    missing, replaced = [], []
    for file in wanted:
        path = output / file.local
        if not path.exists():
            missing.append(file)
        elif path.stat().st_size != file.size:
            replaced.append(file)
    _warn([file.local for file in replaced], "%s: found another size than the archive's list has; it is replaced.")
    missing += replaced
    log.info(
        "Chosen: %d files, %s. To fetch: %d files, %s.",
        len(wanted), _bytes(_size(wanted)), len(missing), _bytes(_size(missing)),
    )  # fmt: skip
    return missing


def _require_space(output: Path, missing: Sequence[ListedFile]) -> None:
    parts = (partial_path(output / file.local) for file in missing)
    needed = _size(missing) - sum(part.stat().st_size for part in parts if part.exists())
    free = shutil.disk_usage(output).free
    log.info("Free on the disk: %s.", _bytes(free))
    if needed > free:
        raise UserError(f"{output}: found {_bytes(free)} free on its disk, expected {_bytes(needed)} at least.")


def _fetch_all(
    client: Client,
    jobs: dict[str, ListedFile],
    output: Path,
    workers: int,
    retry: Retry,
    stopped: threading.Event,
) -> list[ListedFile]:
    """Fetch files by their addresses, as long as disk, network and server allow it; returns those that arrived."""
    failed = without_answer = 0
    pool = ThreadPoolExecutor(workers)
    bar = tqdm(total=_size(jobs.values()), unit="B", unit_scale=True, file=sys.stdout, disable=None)
    try:
        futures = {
            pool.submit(client.fetch, url, output / file.local, file.size, retry): file for url, file in jobs.items()
        }
        for future in as_completed(futures):
            file = futures[future]
            try:
                future.result()
            except TransferError as error:
                failed += 1
                if failed <= MOST_LISTED:
                    log.warning(one_sentence(error))
                without_answer = 0 if isinstance(error, RefusedError) else without_answer + 1
                if without_answer == FAILURES_IN_A_ROW:
                    log.error("%d files in a row failed, expected an answer: the rest is not tried.", without_answer)
                    break
            except OSError as error:
                log.error("%s: it cannot be written (%s).", output / file.local, error.strerror or error)
                break
            else:
                without_answer = 0
                bar.update(file.size)
    finally:
        stopped.set()
        pool.shutdown(wait=not isinstance(sys.exc_info()[1], KeyboardInterrupt), cancel_futures=True)
        bar.close()
    return [file for future, file in futures.items() if not future.cancelled() and future.exception() is None]


def _warn(names: Sequence[str], message: str) -> None:
    for name in names[:MOST_LISTED]:
        log.warning(message, name)
    if len(names) > MOST_LISTED:
        log.warning("And %d more.", len(names) - MOST_LISTED)


def _size(files: Iterable[ListedFile]) -> int:
    return sum(file.size for file in files)


def _bytes(number: int) -> str:
    return str(tqdm.format_sizeof(number, "B", 1000))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="download.py",
        description="Fetch the Light My Cells data set (109 GB, CC BY 4.0) from the BioImage Archive (S-BIAD1047).",
        epilog=EPILOG,
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument(
        "--study",
        type=whole_number(STUDIES[0], STUDIES[-1]),
        nargs="+",
        default=list(STUDIES),
        metavar="N",
        help="studies, 1 to 30 (default: all)",
    )
    parser.add_argument(
        "--modality",
        type=Modality,
        choices=list(Modality),
        nargs="+",
        default=list(Modality),
        help="inputs of these modalities and the targets of their fields (default: all)",
    )
    parser.add_argument(
        "--file-list",
        type=Path,
        metavar="FILE",
        help="fetch only what this text names, one file a line, with or without Study_K/ before it",
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1, 32),
        default=8,
        metavar="N",
        help="files fetched at the same time, 1 to 32 (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be fetched, by study, and its size")
    parser.add_argument(
        "--url",
        type=_url,
        default=ARCHIVE,
        help="another address of the archive's folder, such as https://www.ebi.ac.uk/biostudies/files/S-BIAD1047",
    )
    return parser


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected an address with https://")
    return text.rstrip("/")
