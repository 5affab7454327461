"""The tasks of a config: what an epoch of training passes through, in order; the last is the one that is scored."""

from lib.data.datasets import DATASETS, SETS_2D
from lib.registry import Registry

# Of a task's name: the function that returns the class of a config.
TASKS = Registry("task", {"lifting": "lib.task.lifting:lifting", "image_pose": "lib.task.image_pose:image_pose"})


def scored_task(config):
    """Return the class of the task that a config's training is scored by.

    Raises:
        UserError: keys of the config contradict each other.
    """
    return TASKS[DATASETS[config.dataset].task](config)


def open_tasks(config, dataset):
    """Return the `Task`s of a config: 2D data sets first, if the recipe has them, then that of the data set.

    Raises:
        UserError: a data set is missing or damaged.
    """
    from lib.task.reprojection import Reprojection  # only now: tasks load PyTorch

    names = config.subset_list_2d if config.train_2d else ()
    first = [Reprojection(config, name, SETS_2D[name](config)) for name in names]
    return [*first, scored_task(config)(config, dataset)]
