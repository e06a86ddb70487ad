"""torchrun that ends with the process that started it: `python -m segmodels.engine.torchrun`.

Takes the arguments of `torch.distributed.run`; the processes it starts end with it if they call
`end_with_parent` in their turn.
"""

import os

from segmodels.engine.lifetime import PARENT_PID, end_with_parent

if __name__ == "__main__":
    end_with_parent()
    os.environ[PARENT_PID] = str(os.getpid())
    from torch.distributed.run import main

    main()
