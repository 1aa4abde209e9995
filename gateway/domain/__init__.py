"""What Hilum talks about: ids, studies, jobs, states, messages, errors and ports. Standard library only."""
