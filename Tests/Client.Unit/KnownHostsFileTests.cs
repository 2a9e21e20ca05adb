using System.Security.Cryptography;
using System.Text;

namespace FCtrans.Client.Unit.Tests;

public sealed class KnownHostsFileTests
{
    private static readonly byte[] s_key = Convert.FromBase64String("AAAAC3NzaC1lZDI1NTE5AAAAIGJj");
    private static readonly string s_line = "ssh-ed25519 " + Convert.ToBase64String(s_key);
    private static readonly byte[] s_other = [.. s_key[..^1], 1];

    [Theory]
    [InlineData("kvm1", "kvm1", 22, HostKeyStatus.Known)]
    [InlineData("KVM1", "kvm1", 22, HostKeyStatus.Known)]
    [InlineData("kvm1", "kvm2", 22, HostKeyStatus.Unknown)]
    [InlineData("kvm1,10.0.0.1", "10.0.0.1", 22, HostKeyStatus.Known)]
    [InlineData("kvm1", "kvm1", 2222, HostKeyStatus.Unknown)]
    [InlineData("[kvm1]:2222", "kvm1", 2222, HostKeyStatus.Known)]
    [InlineData("[kvm1]:2222", "kvm1", 22, HostKeyStatus.Unknown)]
    [InlineData("kvm?", "kvm9", 22, HostKeyStatus.Known)]
    [InlineData("*.lab,!bad.lab", "good.lab", 22, HostKeyStatus.Known)]
    [InlineData("*.lab,!bad.lab", "bad.lab", 22, HostKeyStatus.Unknown)]
    [InlineData("!bad.lab,*.lab", "bad.lab", 22, HostKeyStatus.Unknown)]
    [InlineData("# kvm1", "kvm1", 22, HostKeyStatus.Unknown)]
    [InlineData("@revoked kvm1", "kvm1", 22, HostKeyStatus.Revoked)]
    [InlineData("@revoked *", "kvm1", 22, HostKeyStatus.Revoked)]
    [InlineData("@cert-authority *", "kvm1", 22, HostKeyStatus.Unknown)]
    public void A_line_speaks_of_the_hosts_that_its_patterns_match(string patterns, string host, int port, HostKeyStatus status) =>
        Assert.Equal(status, KnownHostsFile.FromText($"{patterns} {s_line} a comment").Find(host, port, s_key).Status);

    [Fact]
    public void Another_key_for_a_named_host_is_a_changed_one() =>
        Assert.Equal(HostKeyStatus.Changed, KnownHostsFile.FromText("kvm1 " + s_line).Find("kvm1", 22, s_other).Status);

    [Fact]
    public void Any_line_with_the_key_is_enough() => Assert.Equal(
        new HostKeyFinding(HostKeyStatus.Known, 3),
        KnownHostsFile.FromText($"kvm1 ssh-ed25519 {Convert.ToBase64String(s_other)}\n\nkvm1 {s_line}").Find("kvm1", 22, s_key));

    [Fact]
    public void A_revoked_key_stays_revoked_beside_a_line_that_has_it() => Assert.Equal(
        HostKeyStatus.Revoked, KnownHostsFile.FromText($"kvm1 {s_line}\n@revoked * {s_line}").Find("kvm1", 22, s_key).Status);

    [Theory]
    [InlineData("kvm1", 22, "kvm1")]
    [InlineData("kvm1", 2222, "[kvm1]:2222")]
    public void Hashed_names_match(string host, int port, string name)
    {
        byte[] salt = Encoding.ASCII.GetBytes("01234567890123456789");
        string hashed = $"|1|{Convert.ToBase64String(salt)}|{Convert.ToBase64String(HMACSHA1.HashData(salt, Encoding.UTF8.GetBytes(name)))}";
        KnownHostsFile file = KnownHostsFile.FromText($"{hashed} {s_line}");
        Assert.Equal(HostKeyStatus.Known, file.Find(host, port, s_key).Status);
        Assert.Equal(HostKeyStatus.Unknown, file.Find("other", port, s_key).Status);
    }

    [Theory]
    [InlineData("|1|not base64|x kvm")]
    [InlineData("|1| kvm")]
    [InlineData("kvm1 ssh-ed25519")]
    [InlineData("kvm1 ssh-ed25519 %%%")]
    [InlineData("@revoked")]
    [InlineData("\0\u0001")]
    public void Lines_that_make_no_sense_decide_nothing(string line) => Assert.Equal(
        HostKeyStatus.Unknown, KnownHostsFile.FromText(line).Find("kvm1", 22, s_key).Status);

    [Fact]
    public void A_hostile_wildcard_does_not_take_for_ever() => Assert.False(KnownHostsLine.WildcardMatches(
        string.Concat(Enumerable.Repeat("*a", 2000)) + "b", new string('a', 5000)));

    [Fact]
    public void Replacing_forgets_the_hosts_old_keys_and_keeps_the_rest()
    {
        string directory = Directory.CreateTempSubdirectory("fctrans-known-").FullName;
        try
        {
            string path = Path.Combine(directory, "ssh", "known_hosts");
            KnownHostsFile.Replace(path, "kvm1", 22, "ssh-ed25519", s_other);
            File.AppendAllText(path, $"# a comment\nkvm1,kvm2 {s_line} shared\n*.lab {s_line}\n");
            KnownHostsFile.Replace(path, "kvm1", 22, "ssh-ed25519", s_key);

            Assert.Equal(
                [$"kvm1 {s_line}", "# a comment", $"kvm2 {s_line} shared", $"*.lab {s_line}"], File.ReadAllLines(path));
            Assert.Equal(HostKeyStatus.Known, KnownHostsFile.Read(path).Find("kvm1", 22, s_key).Status);
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(path));
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }
}
