namespace FCtrans.Client.Unit.Tests;

/// <summary>The SSH configuration means to us what it means to ssh.</summary>
public sealed class SshConfigFileTests
{
    private const string Example = """
        # a comment
        Host kvm1 kvm2
            HostName %h.example.org
            User admin
            Port=2222
            IdentityFile ~/.ssh/kvm_key
            IdentityFile "/keys/with blank"
        Host kvm* !kvm9
            ProxyJump gate@jump.example.org:2200,inner
            User ignored
        Match host special.example.org
            User matched
        Match exec "true"
            User never
        Host *
            IdentitiesOnly yes
            StrictHostKeyChecking accept-new
            UserKnownHostsFile %d/hosts_%r "/etc/hosts admin"
        """;

    [Fact]
    public void Of_each_keyword_the_first_value_that_applies_counts_and_identity_files_add_up()
    {
        SshHostConfig found = SshConfigFile.FromText(Example).Find("kvm1");
        Assert.Equal("kvm1.example.org", found.HostName);
        Assert.Equal("admin", found.User);
        Assert.Equal(2222, found.Port);
        Assert.Equal(["/home/user/.ssh/kvm_key", "/keys/with blank"], found.IdentityFiles);
        Assert.True(found.IdentitiesOnly);
        Assert.True(found.AcceptNewHostKey);
        Assert.Equal(["/home/user/hosts_admin", "/etc/hosts admin"], found.UserKnownHostsFiles);
    }

    [Fact]
    public void A_negated_pattern_excludes_a_host()
    {
        Assert.NotNull(SshConfigFile.FromText(Example).Find("kvm3").ProxyJump);
        Assert.Null(SshConfigFile.FromText(Example).Find("kvm9").ProxyJump);
    }

    [Fact]
    public void Match_blocks_that_can_be_decided_apply_and_others_do_not()
    {
        Assert.Equal("matched", SshConfigFile.FromText(Example).Find("special.example.org").User);
        Assert.Null(SshConfigFile.FromText(Example).Find("other").User);
    }

    [Fact]
    public void Included_files_count_where_they_are_included()
    {
        string directory = Directory.CreateTempSubdirectory("fctrans-config-").FullName;
        try
        {
            string main = Path.Combine(directory, "config");
            File.WriteAllText(Path.Combine(directory, "one.conf"), "User inner\nHost elsewhere\n  Port 7\n");
            File.WriteAllText(main, $"Host kvm1\n  Include {directory}/*.conf\n  HostName after\nHost kvm2\n  Port 9\n");
            SshConfigFile config = SshConfigFile.Read(main);
            SshHostConfig kvm1 = config.Find("kvm1");
            Assert.Equal("inner", kvm1.User);
            Assert.Equal("after", kvm1.HostName);
            Assert.Null(config.Find("elsewhere").Port);
            Assert.Null(config.Find("kvm2").User);
            Assert.Equal(9, config.Find("kvm2").Port);
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    [Fact]
    public void The_systems_file_speaks_after_the_users_and_the_users_last_block_ends_before_it()
    {
        string directory = Directory.CreateTempSubdirectory("fctrans-config-").FullName;
        try
        {
            string user = Directory.CreateDirectory(Path.Combine(directory, "user")).FullName;
            string system = Directory.CreateDirectory(Path.Combine(directory, "system", "ssh_config.d")).Parent!.FullName;
            File.WriteAllText(Path.Combine(system, "ssh_config"), "Include ssh_config.d/*.conf\nUser everybody\nPort 24\nGlobalKnownHostsFile /site/hosts\n");
            File.WriteAllText(Path.Combine(system, "ssh_config.d", "jump.conf"), "Host kvm*\n  ProxyJump gate\n");
            Assert.Equal("everybody", SshConfigFile.ReadBoth(user, system).Find("kvm1").User);

            File.WriteAllText(Path.Combine(user, "config"), "Host kvm1\n  User admin\nHost last\n  Port 7\n");
            SshConfigFile config = SshConfigFile.ReadBoth(user, system);
            SshHostConfig kvm1 = config.Find("kvm1");
            Assert.Equal("admin 24 gate", $"{kvm1.User} {kvm1.Port} {kvm1.ProxyJump}");
            Assert.Equal(["/site/hosts"], kvm1.SystemKnownHostsFiles);
            Assert.Equal(7, config.Find("last").Port);
            SshHostConfig other = config.Find("other");
            Assert.Equal("everybody 24 ", $"{other.User} {other.Port} {other.ProxyJump}");
            Assert.Null(SshConfigFile.Read(Path.Combine(user, "config")).Find("other").User);
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    [Fact]
    public void All_known_hosts_files_count_the_systems_last_and_one_that_was_typed_alone()
    {
        static KvmHostSettings Resolve(string text, string typed = "") =>
            SshSettings.Resolve(new KvmHostSettings { HostName = "x", UserName = "", KnownHostsFile = typed }, SshConfigFile.FromText(text));

        KvmHostSettings usual = Resolve("");
        Assert.Equal(SshPaths.UserKnownHosts[0], usual.KnownHostsFile);
        Assert.Equal([SshPaths.UserKnownHosts[1], "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"], usual.MoreKnownHostsFiles);
        KvmHostSettings named = Resolve("UserKnownHostsFile /a /b\nGlobalKnownHostsFile none\n");
        Assert.Equal("/a", named.KnownHostsFile);
        Assert.Equal(["/b"], named.MoreKnownHostsFiles);
        Assert.Equal("", Resolve("UserKnownHostsFile none").KnownHostsFile);
        KvmHostSettings typed = Resolve("UserKnownHostsFile /a /b", "/typed");
        Assert.Equal("/typed", typed.KnownHostsFile);
        Assert.Empty(typed.MoreKnownHostsFiles);
    }

    [Fact]
    public void Files_that_include_each_other_are_an_error_that_names_the_line()
    {
        string path = Path.GetTempFileName();
        try
        {
            File.WriteAllText(path, $"# one\nInclude {path}\n");
            Assert.Contains("line 2", Assert.Throws<FCtransException>(() => SshConfigFile.Read(path)).Message);
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Theory]
    [InlineData("Port zero", "zero")]
    [InlineData("ProxyCommand nc %h %p", "ProxyJump")]
    public void What_makes_no_sense_is_told_with_its_line(string line, string said)
    {
        SshConfigFile config = SshConfigFile.FromText("Host a\n" + line);
        FCtransException e = Assert.Throws<FCtransException>(() => config.Find("a"));
        Assert.Equal("SshConfigUnusable", e.ErrorId);
        Assert.Contains("line 2", e.Message);
        Assert.Contains(said, e.Message);
        Assert.Equal("b", SshConfigFile.FromText("Host a\n" + line + "\nHost b\n  HostName b\n").Find("b").HostName);
    }

    [Fact]
    public void What_the_user_typed_comes_before_the_configuration()
    {
        KvmHostSettings settings = SshSettings.Resolve(
            new KvmHostSettings { HostName = "kvm1", UserName = "typed", Port = 5, KnownHostsFile = "/typed" }, SshConfigFile.FromText(Example));
        Assert.Equal("typed 5 /typed kvm1.example.org", $"{settings.UserName} {settings.Port} {settings.KnownHostsFile} {settings.Address}");
        Assert.Equal("root", SshSettings.Resolve(new KvmHostSettings { HostName = "x", UserName = "" }, SshConfigFile.FromText("")).UserName);
    }

    [Fact]
    public void Jumps_are_chained_and_each_is_looked_up_itself()
    {
        KvmHostSettings settings = SshSettings.Resolve(
            new KvmHostSettings { HostName = "kvm3", UserName = "", Port = 0, KnownHostsFile = "" },
            SshConfigFile.FromText(Example + "\nHost inner\n  HostName 10.0.0.9\n  Port 23\n"));
        KvmHostSettings inner = settings.Jump!;
        Assert.Equal("10.0.0.9 23", $"{inner.Address} {inner.Port}");
        Assert.Equal("jump.example.org gate 2200", $"{inner.Jump!.Address} {inner.Jump.UserName} {inner.Jump.Port}");
        Assert.Null(inner.Jump.Jump);
    }

    [Theory]
    [InlineData("a,b,c,d,e,f,g,h,i")]
    [InlineData("host:port")]
    [InlineData(",")]
    public void Jumps_that_lead_nowhere_are_refused(string jump)
    {
        Assert.Equal("SshConfigUnusable", Assert.Throws<FCtransException>(() => SshSettings.Resolve(
            new KvmHostSettings { HostName = "x" }, SshConfigFile.FromText($"Host x\n  ProxyJump {jump}"))).ErrorId);
    }

    [Fact]
    public void A_host_that_jumps_through_itself_is_refused()
    {
        Assert.Equal("SshConfigUnusable", Assert.Throws<FCtransException>(() => SshSettings.Resolve(
            new KvmHostSettings { HostName = "x" }, SshConfigFile.FromText("Host *\n  ProxyJump x"))).ErrorId);
    }

    [Fact]
    public void Hosts_without_wildcards_complete()
    {
        Assert.Equal(["kvm1", "kvm2"], SshConfigFile.FromText(Example).HostNames);
    }
}
