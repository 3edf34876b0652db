"""The caption job: the engine, on Ray Data or in this process; the tasks and actors of the graph; the progress of a job."""
