"""The caption job on Ray Data: the engine, the tasks and actors of the graph, the progress of a job."""
