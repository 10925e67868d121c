"""Where the attempts of a worker may have left something: on its machine, and in the clusters of its profiles."""

from datetime import timedelta
from typing import TYPE_CHECKING

from worker.launchers.profiles import KubernetesProfile, SlurmProfile
from worker.launchers.slurm_orphans import SlurmOrphans
from worker.settings import WorkerSettings
from worker.supervise.orphans import Orphans

if TYPE_CHECKING:
    from worker.launchers.kubernetes_orphans import KubernetesOrphans


def orphans_of(settings: WorkerSettings, grace: timedelta) -> "Orphans | SlurmOrphans | KubernetesOrphans":
    local, profiles = Orphans(settings.worker, settings.runs, grace), settings.profiles.values()
    found: Orphans | SlurmOrphans = local
    if any(isinstance(profile, SlurmProfile) for profile in profiles):
        found = SlurmOrphans(local, settings.worker, settings.runs, grace)
    namespaces = {profile.namespace for profile in profiles if isinstance(profile, KubernetesProfile)}
    if not namespaces:
        return found
    # The client of Kubernetes takes half a second to import.
    from worker.launchers.kubernetes_orphans import KubernetesOrphans

    return KubernetesOrphans(found, settings.worker, settings.runs, grace, namespaces)
