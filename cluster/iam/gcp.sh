#!/usr/bin/env bash
# Service accounts for the nodes of cluster/gcp.yaml, once for each project:
#   cluster/iam/gcp.sh <project> <bucket>
# The nodes read gs://<bucket>, and write gs://<bucket>/blat/; the head launches and deletes machines too. The bucket needs
# uniform bucket-level access.
set -euo pipefail
if [ $# -ne 2 ]; then
    echo "usage: cluster/iam/gcp.sh <project> <bucket>" >&2
    exit 2
fi
if [[ ! "$1" =~ ^[a-z][a-z0-9-]+$ || ! "$2" =~ ^[a-z0-9][a-z0-9._-]+$ ]]; then
    echo "cluster/iam/gcp.sh: project '$1', bucket '$2': give their names alone, without gs:// and folders" >&2
    exit 2
fi
project="$1" bucket="$2" role=blatRayHead
launch=compute.instances.create,compute.instances.delete,compute.instances.get,compute.instances.list
launch+=,compute.instances.setLabels,compute.instances.setServiceAccount,compute.disks.create
launch+=,compute.subnetworks.use,compute.subnetworks.useExternalIp,compute.zoneOperations.get
output="resource.name.startsWith('projects/_/buckets/$bucket/objects/blat/')"
address() { echo "$1@$project.iam.gserviceaccount.com"; }

gcloud services enable --project="$project" compute.googleapis.com iam.googleapis.com cloudresourcemanager.googleapis.com
# `ray up` gives the last of them wide roles over the project, each time, and makes it when it is missing. Nothing runs as it,
# and it is disabled; keep it so.
for name in blat-ray-head blat-ray-worker ray-autoscaler-sa-v1; do
    gcloud iam service-accounts describe "$(address "$name")" --project="$project" >/dev/null 2>&1 ||
        gcloud iam service-accounts create "$name" --project="$project"
done
gcloud iam service-accounts disable "$(address ray-autoscaler-sa-v1)" --project="$project"

for name in blat-ray-head blat-ray-worker; do
    member="serviceAccount:$(address "$name")"
    gcloud storage buckets add-iam-policy-binding "gs://$bucket" --member="$member" \
        --role=roles/storage.objectViewer --condition=None
    gcloud storage buckets add-iam-policy-binding "gs://$bucket" --member="$member" \
        --role=roles/storage.objectUser --condition="title=blat,expression=$output"
done

change=create
if gcloud iam roles describe "$role" --project="$project" >/dev/null 2>&1; then change=update; fi
gcloud iam roles "$change" "$role" --project="$project" --title="Head of a Ray cluster" --permissions="$launch"
head="serviceAccount:$(address blat-ray-head)"
gcloud projects add-iam-policy-binding "$project" --member="$head" --role="projects/$project/roles/$role" --condition=None
gcloud iam service-accounts add-iam-policy-binding "$(address blat-ray-worker)" --project="$project" \
    --member="$head" --role=roles/iam.serviceAccountUser
