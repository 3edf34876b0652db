#!/usr/bin/env bash
# Roles and instance profiles for the nodes of cluster/aws.yaml, once for each account and after an edit of that file:
#   cluster/iam/aws.sh <bucket>
# The nodes read s3://<bucket>/corpus/ and read and write s3://<bucket>/blat/; the head launches and ends machines too.
set -euo pipefail
cd "$(dirname "$0")"
if [ $# -ne 1 ]; then
    echo "usage: cluster/iam/aws.sh <bucket>" >&2
    exit 2
fi
if [[ ! "$1" =~ ^[a-z0-9][a-z0-9.-]+$ ]]; then
    echo "cluster/iam/aws.sh: bucket '$1': give its name alone, without s3:// and folders" >&2
    exit 2
fi
region="$(sed -n 's/^  region: *\([a-z0-9-]*\).*/\1/p' ../aws.yaml)"
cluster="$(sed -n 's/^cluster_name: *\([A-Za-z0-9_-]*\).*/\1/p' ../aws.yaml)"
account="$(aws sts get-caller-identity --query Account --output text)"
trust='{"Version": "2012-10-17", "Statement": [
  {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}'
head="$(sed "s/REGION/$region/g; s/ACCOUNT/$account/g; s/CLUSTER/$cluster/g" aws_head.json)"
worker="$(sed "s/BUCKET/$1/g" aws_worker.json)"

for name in blat-ray-head blat-ray-worker; do
    aws iam get-role --role-name "$name" >/dev/null 2>&1 ||
        aws iam create-role --role-name "$name" --assume-role-policy-document "$trust" >/dev/null
    if ! aws iam get-instance-profile --instance-profile-name "$name" >/dev/null 2>&1; then
        aws iam create-instance-profile --instance-profile-name "$name" >/dev/null
        aws iam add-role-to-instance-profile --instance-profile-name "$name" --role-name "$name"
    fi
    # also on the head, where the drivers of jobs run
    aws iam put-role-policy --role-name "$name" --policy-name storage --policy-document "$worker"
done
aws iam put-role-policy --role-name blat-ray-head --policy-name machines --policy-document "$head"
# An account's first spot instance needs this role of AWS's own, and nodes may not make it; one that is there is an error.
aws iam create-service-linked-role --aws-service-name spot.amazonaws.com >/dev/null 2>&1 || true
echo "account $account, $region: blat-ray-head and blat-ray-worker for cluster $cluster and s3://$1"
