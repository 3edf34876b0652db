#!/usr/bin/env bash
# Certificates for Ray's own connections (RAY_USE_TLS), which are plain otherwise:
#   cluster/tls.sh authority <folder>        once, where you keep secrets: ca.crt and ca.key
#   cluster/tls.sh node <folder>             on each node before `ray start`, with both files in <folder>: node.crt and node.key
# Then, on every node and wherever a driver runs:  source <folder>/tls.env
set -euo pipefail
umask 077 # keys are for their owner alone
if [ $# -ne 2 ] || [[ ! "$1" =~ ^(authority|node)$ ]]; then
    echo "usage: cluster/tls.sh authority|node <folder>" >&2
    exit 2
fi
mkdir -p "$2"
cd "$2"

if [ "$1" = authority ]; then
    if [ -e ca.key ]; then
        echo "cluster/tls.sh: $PWD/ca.key is there already; delete it to start over" >&2
        exit 2
    fi
    openssl req -x509 -newkey rsa:3072 -nodes -sha256 -days 365 -subj "/CN=blat-ray authority" -keyout ca.key -out ca.crt 2>/dev/null
    exit
fi

if [ ! -e ca.crt ] || [ ! -e ca.key ]; then
    echo "cluster/tls.sh: $PWD lacks ca.crt or ca.key: copy both from where \`cluster/tls.sh authority\` made them" >&2
    exit 2
fi
names="DNS:localhost,DNS:$(hostname),IP:127.0.0.1$(hostname -I | xargs -n 1 printf ',IP:%s')" # all that this node is called
openssl req -newkey rsa:3072 -nodes -sha256 -subj "/CN=blat-ray node" -keyout node.key -out node.csr 2>/dev/null
openssl x509 -req -sha256 -days 365 -in node.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out node.crt \
    -extfile <(printf 'subjectAltName=%s' "$names") 2>/dev/null
rm node.csr
printf 'export %s\n' RAY_USE_TLS=1 "RAY_TLS_CA_CERT=$PWD/ca.crt" "RAY_TLS_SERVER_CERT=$PWD/node.crt" "RAY_TLS_SERVER_KEY=$PWD/node.key" >tls.env
