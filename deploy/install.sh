#!/bin/sh
# Make the machine that this runs on a Headwater server. For people who have never seen Ansible; whoever
# has uses the collection beside this file (docs/ansible.md). Lies in the folder of a release, and takes
# nothing from anywhere but that folder and the system's own packages.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
home=/root/headwater
domain='' email='' tls='' cert='' key='' ca='' tailnet='' user=admin
yes=no action=install purge=false format=yaml
scratch=''

usage() {
  cat <<'END'
Usage: sh install.sh [OPTIONS]

Make this machine (Debian 12 or 13, Ubuntu 24.04; run as root) a Headwater server, and print the line
with which a first machine joins. Run it again to repeat an installation that was interrupted, or
from the folder of a newer release to upgrade. What it does:

  1. checks that this system will do, and that the release's files are whole (SHA256SUMS)
  2. installs python3, ansible-core and a few more from the system's own package sources
  3. writes /root/headwater/site.yaml, the one file that describes your server
  4. runs Ansible on this machine itself: program, systemd units, firewall, then a look at the result

Options:
  --domain NAME         name by which your machines reach the server, or its address; asked for if not
                        given. Point it here (DNS) before others join.
  --tls acme|local-ca|files|off
                        acme:     certificates from Let's Encrypt, by themselves
                        local-ca: an authority of its own, for a trial: every machine must be told of it
                        files:    certificate and key that you have: --cert and --key
                        off:      a proxy on this machine speaks TLS and passes on to 127.0.0.1:8080
                        (default: acme if NAME can be public, else local-ca)
  --email ADDRESS       where the certificate authority may write to (acme)
  --cert FILE           certificate with its chain, PEM (files)
  --key FILE            its private key, PEM (files)
  --ca FILE             the authority that signed it, if this system does not know it (files)
  --tailnet NAME        domain below which your machines get their names; must not be the server's own
                        (default: ts.DOMAIN)
  --user NAME           first user, to whom the first key belongs (default: admin)
  --yes                 ask nothing, take the defaults; then --domain is needed
  --uninstall           remove the server; its state (keys, database) stays in /var/lib/headwater
  --purge               with --uninstall: remove the state too; every machine must join anew
  --help                this text

Examples:
  sh install.sh
  sh install.sh --domain hw.example.com --tls local-ca --yes
  sh install.sh --domain hw.example.com --tls files --cert /etc/ssl/hw.pem --key /etc/ssl/hw.key --yes

To change something later, edit /root/headwater/site.yaml and run /root/headwater/apply.
END
}

say() { printf '%s\n' "$*"; }

die() {
  printf 'install.sh: %s\n' "$*" >&2
  exit 1
}

misused() {
  printf 'install.sh: %s\nTry: sh install.sh --help\n' "$*" >&2
  exit 2
}

# Arguments -------------------------------------------------------------------------------------------

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      --*=*)
        option=$1
        shift
        set -- "${option%%=*}" "${option#*=}" "$@"
        continue
        ;;
      --domain | --email | --tls | --cert | --key | --ca | --tailnet | --user)
        { [ $# -gt 1 ] && [ -n "$2" ]; } || misused "$1 needs a value"
        put "$1" "$2"
        shift 2
        ;;
      --yes | -y) yes=yes && shift ;;
      --uninstall) action=uninstall && shift ;;
      --purge) purge=true && shift ;;
      --help | -h) usage && exit 0 ;;
      *) misused "there is no option $1" ;;
    esac
  done
  [ "$purge" = false ] || [ "$action" = uninstall ] || misused '--purge goes with --uninstall'
  if [ -n "$cert$key$ca" ] && [ -z "$tls" ]; then tls=files; fi
  case $tls in
    files) { [ -n "$cert" ] && [ -n "$key" ]; } || misused '--tls files needs --cert FILE and --key FILE' ;;
    '' | acme | local-ca | off) [ -z "$cert$key$ca" ] || misused '--cert, --key and --ca go with --tls files' ;;
    *) misused "--tls is acme, local-ca, files or off, not $tls" ;;
  esac
}

# Values go into YAML and shell lines, so only what such values consist of is let through.
put() {
  case $1 in
    --domain) is "$2" 'a-zA-Z0-9.:-' && domain=$2 ;;
    --tailnet) is "$2" 'a-zA-Z0-9.-' && tailnet=$2 ;;
    --email) is "$2" 'a-zA-Z0-9.@_%+-' && has_at "$2" && email=$2 ;;
    --user) is "$2" 'a-zA-Z0-9.@_-' && user=$2 ;;
    --tls) tls=$2 ;;
    --cert) is "$2" 'a-zA-Z0-9./@_+-' && cert=$(absolute "$2") ;;
    --key) is "$2" 'a-zA-Z0-9./@_+-' && key=$(absolute "$2") ;;
    --ca) is "$2" 'a-zA-Z0-9./@_+-' && ca=$(absolute "$2") ;;
  esac || misused "$1: $2 is not such a value"
}

is() {
  [ -z "$(printf %s "$1" | tr -d "$2")" ] && case $1 in -* | .*) false ;; esac
}

has_at() { case $1 in ?*@?*) ;; *) false ;; esac }

absolute() { case $1 in /*) say "$1" ;; *) say "$PWD/$1" ;; esac }

# What this machine is --------------------------------------------------------------------------------

look_at_system() {
  [ "$(id -u)" = 0 ] || die 'run it as root: sudo sh install.sh'
  # shellcheck disable=SC1091  # it is the system's
  system=$(. /etc/os-release 2>/dev/null && printf '%s %s' "${ID:-?}" "${VERSION_ID:-?}") || system='? ?'
  case $system in
    'debian 12' | 'debian 13' | 'ubuntu 24.04') ;;
    'nixos '*) die 'on NixOS use the module: docs/nixos.md' ;;
    *) die "this system is $system; Debian 12 or 13 and Ubuntu 24.04 will do. Elsewhere use the container image (docs/images.md)" ;;
  esac
  [ -d /run/systemd/system ] || die 'systemd does not run here, and the server is a systemd service; for containers there is an image'
}

find_release() {
  [ -r "$here/SHA256SUMS" ] || die "there is no release beside this script ($here has no SHA256SUMS): copy the whole folder of the release here"
  collection=$(listed 'headwater-headwater-.*[.]tar[.]gz')
  verify "$collection"
}

find_archive() {
  kind=$(python3 -c 'import platform, sys; print("cp%d%d-%s" % (*sys.version_info[:2], platform.machine()))')
  archive=$(listed "headwater-.*-${kind}[.]tar")
  [ -n "$archive" ] || die "this release has no archive for $kind (Python and processor of this machine)"
  verify "$archive"
}

listed() { sed -n "s/^[0-9a-f]\{64\}  \($1\)\$/\1/p" "$here/SHA256SUMS"; }

verify() {
  { [ -n "$1" ] && [ -f "$here/$1" ]; } || die "the release in $here is not whole: ${1:-the collection} is missing"
  (cd "$here" && grep -F "  $1" SHA256SUMS | sha256sum --check --status) ||
    die "$here/$1 is damaged: it is not what SHA256SUMS says. Fetch the release again"
}

# Packages --------------------------------------------------------------------------------------------

install_packages() {
  missing=''
  for package in python3 python3-venv python3-apt ansible-core ca-certificates nftables; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
      missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  say "Installing from this system's package sources:$missing"
  apt-get update >>"$log" 2>&1 </dev/null || failed 'the package sources do not answer'
  # shellcheck disable=SC2086  # a list of names
  apt-get install --yes --no-install-recommends -o DPkg::Lock::Timeout=300 $missing \
    >>"$log" 2>&1 </dev/null || failed 'the packages could not be installed'
}

failed() {
  tail -n 25 "$log" | sed 's/^/  | /' >&2
  die "$1; all that was said is in $log"
}

# The site --------------------------------------------------------------------------------------------

ask() {
  { [ "$yes" = no ] && [ -t 0 ]; } || misused "give $1 (there is nobody to ask)"
  printf '%s: ' "$2" >&2
  read -r answer || exit 1
  [ -n "$answer" ] || die 'nothing was given; nothing was changed'
  put "$1" "$answer"
}

write_site() {
  if [ -f "$home/site.yaml" ] && [ -z "$domain" ]; then
    say "Keeping $home/site.yaml."
    return 0
  fi
  [ -n "$domain" ] || ask --domain 'Name of the server, like hw.example.com'
  domain=$(printf %s "$domain" | tr '[:upper:]' '[:lower:]')
  choose_tls
  site >"$scratch/site.yaml"
  if [ -f "$home/site.yaml" ] && ! cmp -s "$home/site.yaml" "$scratch/site.yaml"; then
    die "$home/site.yaml is there and says something else: edit it, then run $home/apply"
  fi
  program config check "$scratch/site.yaml" >"$scratch/said" 2>&1 ||
    die "these settings will not do: $(sed "s|$scratch/||" "$scratch/said")"
  confirm
  cp "$scratch/site.yaml" "$home/site.yaml"
}

choose_tls() {
  if [ -z "$tls" ]; then
    tls=acme
    site >"$scratch/trial.yaml"
    # Only where the name is what stands in the way: another mistake is told, and nothing is chosen.
    program config check "$scratch/trial.yaml" >"$scratch/said" 2>&1 ||
      ! grep -q '^ *server_url:' "$scratch/said" || tls=local-ca
    [ $tls = acme ] || say "No public authority certifies $domain: taking an authority of its own (--tls local-ca)."
  fi
  case $tls in
    acme)
      say "By asking Let's Encrypt for a certificate you agree to its terms of service."
      [ -n "$email" ] || [ "$yes" = yes ] || ask --email 'Your mail address, for the certificate authority'
      ;;
    files)
      for file in "$cert" "$key" "${ca:-$cert}"; do [ -r "$file" ] || die "there is no file $file"; done
      ;;
  esac
}

site() {
  case $domain in *:*) at="[$domain]" ;; *) at=$domain ;; esac
  case $domain in
    *:*) below=tailnet.internal ;; # an address
    *[!0-9.]*) below=ts.$domain ;;
    *) below=tailnet.internal ;;
  esac
  say "# The one file that describes this server. After a change run $home/apply"
  say "server_url: https://$at"
  case $tls in
    acme)
      printf 'tls:\n  mode: acme\n'
      [ -z "$email" ] || printf '  email: %s\n' "$email"
      ;;
    local-ca) printf 'tls:\n  mode: local_ca\n' ;;
    files) printf 'tls:\n  cert_file: fullchain.pem\n  key_file: privkey.pem\n' ;;
    off) printf 'listen: ["127.0.0.1:8080"]\ntls:\n  mode: off\ntrusted_proxies: [127.0.0.1/32, "::1/128"]\n' ;;
  esac
  printf 'tailnet:\n  base_domain: %s\n' "${tailnet:-$below}"
}

confirm() {
  say '' "The site file, $home/site.yaml, will be:" ''
  sed 's/^/  /' "$scratch/site.yaml"
  say ''
  [ "$yes" = no ] || return 0
  [ -t 0 ] || misused 'give --yes (there is nobody to ask)'
  printf 'Put the server on this machine? [y/N] ' >&2
  read -r answer || answer=''
  case $answer in y | Y | yes) ;; *) die 'nothing was changed' ;; esac
}

# The program of the release, before anything is installed: from its unpacked wheels.
program() {
  if [ ! -d "$scratch/trial" ]; then
    mkdir "$scratch/release" "$scratch/trial"
    tar -C "$scratch/release" -xf "$here/$archive"
    for wheel in "$scratch"/release/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$scratch/trial"; done
  fi
  PYTHONPATH="$scratch/trial" PYTHONDONTWRITEBYTECODE=1 python3 -m appliance "$@"
}

# Ansible ---------------------------------------------------------------------------------------------

unpack_collection() {
  place=$home/collections/ansible_collections/headwater
  rm -rf "$place/new" "$place/old"
  mkdir -p "$place/new"
  tar -C "$place/new" --no-same-owner -xzf "$here/$collection"
  [ ! -d "$place/headwater" ] || mv "$place/headwater" "$place/old"
  mv "$place/new" "$place/headwater"
  rm -rf "$place/old"
}

# Only once: it is the operator's from then on.
write_inventory() {
  [ ! -f "$home/inventory.yml" ] || [ -n "$domain" ] || return 0
  ports=$(ssh_ports)
  [ "$tls" != off ] || ports="$ports, 80, 443"
  {
    printf 'all:\n  children:\n    headwater:\n      hosts:\n        localhost:\n'
    printf '          ansible_connection: local\n          ansible_python_interpreter: /usr/bin/python3\n'
    printf '      vars:\n        headwater_site_file: %s/site.yaml\n' "$home"
    printf '        headwater_open_tcp_ports: [%s]\n' "$ports"
    if [ "$tls" = off ] && [ -z "$(ss -Hltn 'sport = :443' 2>/dev/null)" ]; then
      printf '        # There was no proxy yet that could be asked; take this line out when there is.\n'
      printf '        headwater_verify: false\n'
    fi
    if [ "$tls" = files ]; then
      printf '        headwater_secrets:\n'
      for pair in "fullchain.pem $cert" "privkey.pem $key"; do
        printf "          %s: \"{{ lookup('ansible.builtin.file', '%s') }}\"\n" "${pair%% *}" "${pair#* }"
      done
      [ -z "$ca" ] || printf '        headwater_verify_ca_file: %s\n' "$ca"
    fi
  } >"$home/inventory.yml"
  {
    printf '#!/bin/sh\n# Apply site.yaml and inventory.yml to this machine, as install.sh does. Options go to ansible-playbook.\n'
    printf 'cd %s && LC_ALL=C.UTF-8 ANSIBLE_COLLECTIONS_PATH=%s/collections \\\n' "$home" "$home"
    # shellcheck disable=SC2016  # expanded when it is run
    printf '  exec ansible-playbook -i inventory.yml "headwater.headwater.${PLAYBOOK:-site}" "$@"\n'
  } >"$home/apply"
  chmod 0700 "$home/apply"
}

# Where sshd listens, and where whoever runs this came in: the firewall keeps these open.
ssh_ports() {
  {
    say 22
    sshd -T 2>/dev/null | sed -n 's/^port //p'
    say "${SSH_CONNECTION:-}" | sed -n 's/.* \([0-9][0-9]*\)$/\1/p'
  } | sort -nu | paste -sd, - | sed 's/,/, /g'
}

play() {
  book=$1
  shift
  PLAYBOOK=$book ANSIBLE_CALLBACK_RESULT_FORMAT=$format ANSIBLE_NOCOLOR=1 ANSIBLE_LOCALHOST_WARNING=0 \
    "$home/apply" "$@" >>"$log" 2>&1 </dev/null
}

# What comes after ------------------------------------------------------------------------------------

join() {
  url=$(sed -n 's/^server_url: *//p' "$home/site.yaml")
  if [ -n "$(headwater users list -o json-line 2>/dev/null | tr -d '[]\n')" ]; then
    say '' "The server runs. A key for another machine: headwater preauthkeys create -u NAME"
    return 0
  fi
  headwater users create "$user" >>"$log" 2>&1 || failed "the user $user could not be made"
  auth_key=$(headwater preauthkeys create -u "$user" -e 24h) || die 'no key could be made'
  say '' 'The server runs. On the machine that is to join, with the stock Tailscale client:' ''
  if grep -q 'mode: local_ca' "$home/site.yaml"; then
    say "  # tell it of the server's own authority, once:"
    say "  scp root@${url#https://}:/var/lib/headwater/tls/ca.pem /usr/local/share/ca-certificates/headwater.crt"
    say '  update-ca-certificates && systemctl restart tailscaled' ''
  fi
  say "  tailscale up --login-server $url --auth-key $auth_key" ''
  say "The key is good for one machine and for 24 hours. Another: headwater preauthkeys create -u $user"
  say 'If the provider has a firewall of its own, open TCP 443 (and 80) and UDP 3478 in it.'
}

uninstall() {
  [ -x "$home/apply" ] || die "there is no $home: this script has not installed anything here"
  say 'Removing the server.'
  format=json # its lines are whole
  play uninstall -e "headwater_purge=$purge" || failed 'the server could not be removed'
  sed -n 's/.*"\(Stays: [^"]*\)".*/\1/p' "$log"
  say 'Stays: ansible-core and python3-apt, which nothing of it needs any more'
  rm -rf "$home"
}

main() {
  parse "$@"
  look_at_system
  umask 022 # what is installed is read by the server's own user
  log=$home/install.log
  LC_ALL=C.UTF-8
  DEBIAN_FRONTEND=noninteractive
  export LC_ALL DEBIAN_FRONTEND
  if [ "$action" = uninstall ]; then
    uninstall
    return
  fi
  find_release
  [ -n "$domain" ] || [ -f "$home/site.yaml" ] || ask --domain 'Name of the server, like hw.example.com'
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  trap 'exit 130' INT TERM HUP
  mkdir -p "$home"
  chmod 0700 "$home"
  : >"$log"
  install_packages
  find_archive
  write_site
  unpack_collection
  write_inventory
  say "Putting the server on this machine ($home/install.log has every step)."
  play site -e "headwater_release_dir=$here" || failed 'the server is not up'
  join
}

main "$@"
