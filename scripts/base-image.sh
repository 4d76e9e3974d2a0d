#!/bin/sh
# Finds the image of a Debian release that containers are made from, pulled, or made here where no registry is in reach;
# says its name. Or says what stands in the way, and ends with 1.
#   base-image.sh RELEASE    bookworm, trixie, forky
set -eu
release=$1

# One chain: inside a condition the shell goes on after an error, and half a system must not become an image.
make_base() {
    as_root=
    [ "$(id -u)" -eq 0 ] || as_root=sudo
    folder=$(mktemp -d)
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends debootstrap >/dev/null
    # A release that is not out yet may be unknown to debootstrap, and says little of its age.
    script=/usr/share/debootstrap/scripts/$release
    [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
    made=1
    $as_root debootstrap --variant=minbase "$release" "$folder" "$mirror" "$script" >/dev/null &&
        echo 'Acquire::Check-Valid-Until "false";' | $as_root tee "$folder/etc/apt/apt.conf.d/90age" >/dev/null &&
        $as_root tar -C "$folder" -cf "$folder.tar" . &&
        $as_root docker import --change 'CMD ["bash"]' "$folder.tar" "$1" >/dev/null && made=0
    $as_root rm -rf "$folder" "$folder.tar"
    return "$made"
}

if ! docker version --format '{{.Server.Version}}' >/dev/null 2>&1; then
    echo "no Docker engine answers"
    exit 1
fi
pulled=debian:$release
[ "$release" != bookworm ] || pulled=${PG_STOCK_BASE_IMAGE:-$pulled}
for image in "$pulled" "pg_stock_base:$release"; do
    if docker image inspect "$image" >/dev/null 2>&1; then
        echo "$image"
        exit 0
    fi
done
image=$pulled
if ! timeout 120 docker pull -q "$image" >/dev/null 2>&1; then
    image=pg_stock_base:$release
    make_base "$image" >/dev/null || { echo "there is no image of Debian $release, and none could be made"; exit 1; }
fi
echo "$image"
