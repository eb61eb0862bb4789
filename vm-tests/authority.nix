# An authority for one story, and a certificate for each of these hosts; `driver/authority.py` makes the
# same for Debian. Keys in the store are good for tests only.
{ pkgs, hosts }:
pkgs.runCommand "story-authority" { nativeBuildInputs = [ pkgs.openssl ]; } ''
  mkdir "$out"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
    -subj /CN=story -keyout "$out/ca.key" -out "$out/ca.pem" \
    -addext keyUsage=critical,keyCertSign,cRLSign
  for host in ${toString hosts}; do
    mkdir "$out/$host"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$host" \
      -keyout "$out/$host/key.pem" -out request.pem
    printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth\nauthorityKeyIdentifier=keyid\n' \
      "$host" > extensions
    openssl x509 -req -in request.pem -days 30 -CA "$out/ca.pem" -CAkey "$out/ca.key" \
      -extfile extensions -out "$out/$host/fullchain.pem"
  done
''
