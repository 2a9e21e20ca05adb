using System.Buffers.Binary;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using FCtrans.Lab;
using Xunit;

namespace FCtrans.Vm.Tests;

/// <summary>The lab must be believed before what is tested in it can be.</summary>
[Collection(LabCollection.Name)]
public sealed class LabTests : IDisposable
{
    private readonly LabHost _first;
    private readonly LabHost _second;

    public LabTests(LabFixture fixture)
    {
        _first = fixture.Lab.AddHost("lab-first", 2L << 30);
        _second = fixture.Lab.AddHost("lab-second", 64L << 20);
    }

    public void Dispose()
    {
        _first.Dispose();
        _second.Dispose();
    }

    [Fact]
    public void Hosts_have_their_own_names_files_processes_and_accounts()
    {
        _first.Exec("echo one >/etc/mark; echo one >/var/lib/mark; echo one >/root/mark; echo one >/tmp/mark; echo one >/dev/shm/mark");
        LabCommandResult seen = _second.Exec("hostname; cat /etc/mark /var/lib/mark /root/mark /tmp/mark /dev/shm/mark; df --output=size -B1 /dev/shm | tail -1");
        Assert.Equal(["lab-second", (64L << 20).ToString()], seen.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(l => l.Trim()));
        Assert.False(File.Exists("/etc/mark") || File.Exists("/var/lib/mark") || File.Exists("/root/mark"));
        Assert.DoesNotContain("dotnet", _first.Exec("cat /proc/[0-9]*/comm").Output, StringComparison.Ordinal);
        // Ctrl+C for whoever uses the lab must not reach a host: its sshd leads a session.
        string[] stat = _first.Exec("cat /run/sshd.pid; cut -d' ' -f6 /proc/$(cat /run/sshd.pid)/stat").Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(stat[0], stat[1]);
    }

    [Fact]
    public void A_limited_link_carries_no_more_than_its_limit_and_a_cut_one_nothing()
    {
        const int bytes = 4_000_000;
        _first.ShapeLink(16_000_000);
        TimeSpan limited = Download(bytes);
        // The bucket lets 128 KiB pass at once; the rest takes its time at 2 MB/s.
        Assert.InRange(limited.TotalSeconds, (bytes - 300_000) / 2_000_000.0, 6);

        _first.ShapeLink(null);
        Assert.InRange(Download(bytes).TotalSeconds, 0, limited.TotalSeconds / 2);

        _first.CutLink();
        Assert.False(Answers());
        _first.RestoreLink();
        long started = Stopwatch.GetTimestamp();
        while (!Answers())
        {
            Assert.InRange(Stopwatch.GetElapsedTime(started).TotalSeconds, 0, 10);
        }
    }

    [Fact]
    public void The_oracle_holds_verifies_and_gives_back_memory_and_finds_one_wrong_byte()
    {
        LabGuest guest = _first.StartGuest(new LabGuestOptions { Name = "oracle", MemoryBytes = 256L << 20 });
        long freeAtFirst = guest.Invoke("meminfo")["MemFree"];
        Assert.Equal(64 * 256, guest.Invoke("fill 64")["pages"]);
        Assert.Equal(0, guest.Invoke("fresh 16")["errors"]);
        // The guest's kernel has a stock of free pages per processor that MemFree leaves out, and that grows and shrinks.
        Assert.InRange(freeAtFirst - guest.Invoke("meminfo")["MemFree"], 78 * 1024, 90 * 1024);
        guest.Invoke("free 40 scatter");
        Assert.InRange(freeAtFirst - guest.Invoke("meminfo")["MemFree"], 38 * 1024, 52 * 1024);

        OracleAnswer touched = guest.Invoke("touch 1000");
        Assert.Equal((1000, 0), (touched["touches"], touched["errors"]));
        OracleAnswer used = guest.Invoke("use 20 rounds=2");
        Assert.Equal((2 * (20 * 2 + 40) * 256, 0), (used["pages"], used["errors"]));
        Assert.InRange(freeAtFirst - guest.Invoke("meminfo")["MemFree"], 38 * 1024, 52 * 1024);

        guest.Invoke("run rate=20 churn=5 threads=2");
        OracleAnswer passed = guest.WaitForFullPass(TimeSpan.FromSeconds(60));
        Assert.Equal(40 * 256, passed["pages"]);
        Assert.Equal(0, passed["errors"]);
        long started = Stopwatch.GetTimestamp();
        OracleAnswer worked;
        do
        {
            worked = guest.Invoke("stat");
            Assert.InRange(Stopwatch.GetElapsedTime(started).TotalSeconds, 0, 60);
        }
        while (worked["rewritten"] < (80 + 20) * 256 || worked["churned"] < 2 * 256);
        Assert.Equal(0, guest.Invoke("pause")["running"]);
        Assert.Equal(0, guest.Invoke("verify")["errors"]);

        SpoilOnePage(_first.PathOf(guest.RamPath));
        OracleAnswer spoilt = guest.Invoke("verify");
        Assert.Equal((40 * 256, 1), (spoilt["pages"], spoilt["errors"]));
        Assert.True(guest.Console.WaitForLine(line => line.StartsWith("! mismatch page=", StringComparison.Ordinal), TimeSpan.FromSeconds(10)));

        Assert.Contains("too little", Assert.Throws<LabException>(() => guest.Invoke("fill 4000")).Message, StringComparison.Ordinal);
        guest.Stop();
        Assert.Equal("", _first.Exec("ls /run/guests /dev/shm | grep -v :; pgrep qemu").Output.Trim());
    }

    [Fact]
    public void A_bare_guest_runs_under_kvm_and_finds_one_wrong_word()
    {
        LabGuest guest = _first.StartGuest(new LabGuestOptions { Name = "bare", Bare = true, MemoryBytes = 64L << 20 });
        Assert.Equal(4 * 256, guest.Invoke("fill 4")["pages"]);
        guest.Invoke("run rewrite=4");
        OracleAnswer passed = guest.WaitForFullPass(TimeSpan.FromSeconds(60));
        Assert.Equal(0, passed["errors"]);
        Assert.True(passed["rewritten"] > 4 * 256);
        guest.Invoke("pause");
        using (FileStream ram = File.OpenWrite(_first.PathOf(guest.RamPath)))
        {
            ram.Position = (16 << 20) + 4096 + 512 * 7; // the last word checked of its second page
            ram.WriteByte(0);
            ram.WriteByte(0);
            ram.WriteByte(0);
            ram.WriteByte(0);
        }

        Assert.Equal(1, guest.Invoke("verify")["errors"]);
    }

    [Fact]
    public void A_guest_that_qemu_refuses_leaves_nothing_and_says_why()
    {
        var options = new LabGuestOptions { Name = "bad", QemuArguments = ["-no-such-option"] };
        Assert.Contains("no-such-option", Assert.Throws<LabException>(() => _first.StartGuest(options)).Message, StringComparison.Ordinal);
        Assert.Equal("", _first.Exec("ls /run/guests /dev/shm | grep -v :").Output.Trim());
        Assert.Empty(_first.Guests);
    }

    // The oracle's pages say their own number and generation in the first two words.
    private static void SpoilOnePage(string ramFile)
    {
        using FileStream ram = File.Open(ramFile, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
        var page = new byte[4096];
        while (ram.Read(page) == page.Length)
        {
            ulong number = BinaryPrimitives.ReadUInt64LittleEndian(page), generation = BinaryPrimitives.ReadUInt64LittleEndian(page.AsSpan(8));
            ulong step = Place(BinaryPrimitives.ReadUInt64LittleEndian(page.AsSpan(32))) - Place(BinaryPrimitives.ReadUInt64LittleEndian(page.AsSpan(24)));
            // Only pages held match the oracle's last generation, but freed ones look alike: take one that was churned or
            // rewritten since they were freed, which only pages held can have been.
            if (step == 0x9e3779b97f4a7c15 && number < 80 * 256 && generation > 1)
            {
                ram.Position += 1000 - page.Length;
                ram.WriteByte((byte)~page[1000]);
                return;
            }
        }

        Assert.Fail("No page of the oracle lies in the RAM file.");

        // The way back from a word to what the oracle made it of, which grows by a constant from word to word.
        static ulong Place(ulong word) => word ^ (word >> 29) ^ (word >> 58);
    }

    private TimeSpan Download(int bytes)
    {
        // Served by the host's own tools, so that nothing but the link sets the pace.
        using Process server = Process.Start("nsenter", ["-t", _first.ProcessId.ToString(), "--net", "busybox", "nc", "-l", "-p", "9000", "-e", "/usr/bin/head", "-c", bytes.ToString(), "/dev/zero"]);
        using var client = new TcpClient();
        long started = Stopwatch.GetTimestamp();
        while (!client.Connected)
        {
            try
            {
                client.Connect(IPAddress.Parse(_first.Address), 9000);
            }
            catch (SocketException) when (Stopwatch.GetElapsedTime(started).TotalSeconds < 10)
            {
                // It does not listen yet.
            }
        }

        started = Stopwatch.GetTimestamp();
        var buffer = new byte[65536];
        int total = 0;
        for (int count; (count = client.GetStream().Read(buffer)) > 0;)
        {
            total += count;
        }

        Assert.Equal(bytes, total);
        TimeSpan elapsed = Stopwatch.GetElapsedTime(started);
        server.WaitForExit();
        return elapsed;
    }

    private bool Answers()
    {
        try
        {
            using var client = new TcpClient();
            using var giveUp = new CancellationTokenSource(TimeSpan.FromMilliseconds(300));
            client.ConnectAsync(_first.Address, 22, giveUp.Token).AsTask().GetAwaiter().GetResult();
            return true;
        }
        catch (Exception e) when (e is SocketException or OperationCanceledException)
        {
            return false;
        }
    }
}
