"""A Kubernetes API server that is none: its routes, its rules for names, deletions and permissions, and no controllers.
What JobSet, Kueue and the kubelets would write, a test writes."""
