# The container image: the program, authorities to trust, a user and a volume; no base and no tools. It
# says of itself what deploy/Containerfile says, so that one takes the other's place (docs/images.md).
{ lib, dockerTools, cacert, writeTextDir, headwater }:
let
  facts = import ./facts.nix;
  inherit (facts) constants image;
  id = toString constants.image_uid;
  name = constants.user;
  owned = mode: place: "install -d -o ${id} -g ${id} -m ${mode} .${place}";
in
dockerTools.buildLayeredImage {
  name = "headwater";
  tag = headwater.version;
  contents = [
    headwater
    cacert
    (writeTextDir "etc/passwd" "${name}:x:${id}:${id}::${image.WorkingDir}:/sbin/nologin\n")
    (writeTextDir "etc/group" "${name}:x:${id}:\n")
  ];
  # For owners only; nothing is run as root when the image is built or run.
  fakeRootCommands = ''
    ${owned "0700" image.WorkingDir}
    ${owned "0755" (dirOf facts.settings.socket.keys.path.default)}
    install -d -m 0755 .${constants.config_dir}
    install -d -m 1777 ./tmp
  '';
  config = image // {
    Env = image.Env ++ [ "PATH=/bin" "SSL_CERT_FILE=${cacert}/etc/ssl/certs/ca-bundle.crt" ];
    Labels = {
      "org.opencontainers.image.title" = "Headwater";
      "org.opencontainers.image.description" = headwater.meta.description;
      "org.opencontainers.image.licenses" = lib.licenses.bsd3.spdxId;
      "org.opencontainers.image.version" = headwater.version;
    };
  };
}
