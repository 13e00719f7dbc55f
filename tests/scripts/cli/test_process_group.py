"""Every end of a command takes leave of the other ranks: a group left to the interpreter's end aborts it now and then.

The same with processes that torchrun starts is in tests/integration/test_torchrun.py.
"""

from collections.abc import Sequence

import pytest
from torch import distributed

from scripts.cli.entry_point import Stopped, UsageError, run_command
from scripts.cli.watch import Interrupted

ENDS = {
    None: 0,
    ValueError("K"): 1,
    UsageError("K"): 2,
    SystemExit(3): 3,
    KeyboardInterrupt(): 130,
    Stopped("asked", 143): 143,
    Interrupted(10): 138,
}


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_no_group_is_left(end: BaseException | None) -> None:
    def main(arguments: Sequence[str]) -> None:
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
        if end is not None:
            raise end

    for _ in range(3):
        with pytest.raises(SystemExit) as ended:
            run_command(main, [])
        assert ended.value.code == ENDS[end]
        assert not distributed.is_initialized()
