"""Downstream datasets: their listings, splits and labels."""

from eval.tasks.registry import TASKS, Task, classes, descriptions, present, read

__all__ = ["TASKS", "Task", "classes", "descriptions", "present", "read"]
