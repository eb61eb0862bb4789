# Secret files, handed to the service as credentials: the service never sees where they lie, and
# nothing of them is in the store, in settings, in the environment or on a command line.
{ config, lib, headwater, ... }:
let
  inherit (headwater) plan;
  cfg = config.services.headwater;
  outside = lib.types.str // { description = "absolute path, as text, of a file outside the Nix store"; };
  option = name: "services.headwater.secrets.${name}";
  rule = assertion: message: { inherit assertion message; };
  wanted = map (s: s.value) plan.wanted;
in
{
  options.services.headwater.secrets = lib.mkOption {
    type = lib.types.attrsOf outside;
    default = { };
    example = { database-password = "/run/secrets/headwater/database-password"; };
    description = ''
      Secret files by the name that `settings` uses: `settings.database_password_file =
      "database-password"` reads `secrets.database-password`. sops-nix: `config.sops.secrets.NAME.path`;
      agenix: `config.age.secrets.NAME.path`. They may belong to root, mode 0400.
    '';
  };

  config = lib.mkIf cfg.enable {
    assertions =
      map
        (s: rule (cfg.secrets ? ${s.value})
          "services.headwater.settings.${s.key}: found the credential \"${s.value}\", which nothing provides; fix: set ${option s.value} = \"/run/secrets/…\", or write a path that begins with /")
        plan.wanted
      ++ lib.mapAttrsToList
        (name: path: rule (lib.hasPrefix "/" path && !lib.hasPrefix "${builtins.storeDir}/" path)
          "${option name}: found \"${path}\"; allowed: an absolute path outside the Nix store; fix: name a file that sops-nix, agenix or you put on the machine, as text")
        cfg.secrets
      ++ lib.mapAttrsToList
        (name: path: rule (lib.elem name wanted)
          "${option name}: found a secret that no setting names; fix: name it in one of ${lib.concatStringsSep ", " headwater.facts.secret_keys}, or take it away")
        cfg.secrets;
  };
}
