# Secret files, handed to the service as credentials: the service never sees where they lie, and
# nothing of them is in the store, in settings, in the environment or on a command line.
{ config, lib, ... }:
let
  cfg = config.services.headwater;
  inherit (cfg.made) facts inStore isPlanned isSecret plan show;
  option = name: "services.headwater.secrets.${name}";
  rule = assertion: message: { inherit assertion message; };
  wanted = map (s: s.value) plan.wanted;
  # What only names certificates is no secret.
  mayBeSeen = name: lib.elem name wanted && !lib.any (s: s.value == name && isSecret s.key) plan.wanted;
  isRight = name: path: builtins.isString path && lib.hasPrefix "/" path && (mayBeSeen name || !inStore path);
in
{
  options.services.headwater.secrets = lib.mkOption {
    # Paths and derivations are refused below, with what to do.
    type = lib.types.attrsOf lib.types.raw // {
      description = "attribute set of absolute path, as text, of a file outside the Nix store";
    };
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
        (name: path: rule (isRight name path)
          "${option name}: found ${show path}; allowed: an absolute path outside the Nix store, which everybody reads; fix: name a file that sops-nix, agenix or you put on the machine, as text; make a new secret if this one was in use")
        cfg.secrets
      ++ lib.mapAttrsToList
        (name: _: rule (!isPlanned || lib.elem name wanted)
          "${option name}: found a secret that no setting names; fix: name it in one of ${lib.concatStringsSep ", " facts.secret_keys}, or take it away")
        cfg.secrets;
  };
}
