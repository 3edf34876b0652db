"""Two towers behind the interfaces of transformers. These files and what they import travel with published weights."""
