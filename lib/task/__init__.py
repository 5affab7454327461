"""The tasks of a config: what an epoch of training passes through, in order; the last is the one that is scored."""

import logging

log = logging.getLogger(__name__)


def open_tasks(config, dataset):
    """Return the `Task`s of a config: 2D data sets first, if the recipe has them, then lifting.

    Raises:
        UserError: a data set is missing or damaged.
    """
    from lib.data.datasets import SETS_2D  # only now: tasks load PyTorch
    from lib.task.lifting import Lifting
    from lib.task.reprojection import Reprojection

    names = config.subset_list_2d if config.train_2d else ()
    return [*(Reprojection(config, name, SETS_2D[name](config)) for name in names), Lifting(config, dataset)]
