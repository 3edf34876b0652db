"""Two towers of transformers behind the interface of ours."""
