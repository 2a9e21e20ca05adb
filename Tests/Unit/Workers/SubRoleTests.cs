using System.Net;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Transport;
using FCtrans.Agent.Workers;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Unit.Tests.Workers;

public sealed class SubRoleTests : IDisposable
{
    private const long Pages = 512;

    private readonly WorkerDirectory _directory = WorkerDirectory.Of(Guid.NewGuid().ToString("N"), WorkerRole.Sub);
    private readonly DirectoryInfo _peer = Directory.CreateTempSubdirectory("fctrans-sub-");
    private readonly WorkerCertificate _main;
    private readonly string _thumbprint;

    public SubRoleTests()
    {
        _main = WorkerCertificate.Create(_peer.FullName);
        _directory.Create();
        using var own = WorkerCertificate.Create(_directory.Path);
        _thumbprint = own.Thumbprint;
        _directory.WriteSpec(new WorkerSpec
        {
            SplitId = _directory.SplitId,
            Role = WorkerRole.Sub,
            VmName = "vm",
            ListenAddress = "127.0.0.1",
            Tls = true,
            RamBlocks = { new RamBlockSpec { Id = "ram", SizeBytes = Pages << PageIndex.PageShift } },
            Peers = { new Peer { Role = WorkerRole.Main, Host = "main", Thumbprint = _main.Thumbprint } },
        });
    }

    private string Store => $"/dev/shm/fctrans-{_directory.SplitId}-store";

    public void Dispose()
    {
        SubRole.RemoveStore(_directory.SplitId);
        _directory.Remove();
        _main.Dispose();
        _peer.Delete(recursive: true);
    }

    /// <summary>An empty store in its place would list no page, and a main worker that is started again would take them all for zeros.</summary>
    [Theory]
    [InlineData("file")]
    [InlineData("directory")]
    [InlineData("content")]
    public void AWorkerThatIsStartedAgainWithoutItsStoreServesNoOther(string gone)
    {
        using (var first = new Worker(_directory))
        {
            Connect(ConnectionPurpose.Bulk).Dispose();
        }

        switch (gone)
        {
            case "file":
                File.Delete(Path.Combine(Store, "pages"));
                break;
            case "directory":
                Directory.Delete(Store, recursive: true);
                break;
            default:
                File.WriteAllBytes(Path.Combine(Store, "pages"), []);
                break;
        }

        using var second = new Worker(_directory);
        foreach (var purpose in (ConnectionPurpose[])[ConnectionPurpose.Bulk, ConnectionPurpose.Demand, ConnectionPurpose.Take])
        {
            var refused = Assert.Throws<PeerConnectionException>(() => Connect(purpose));
            Assert.True(refused.IsRefused);
            Assert.Contains("Remove-VmSubHost -Lost", refused.Message, StringComparison.Ordinal);
        }

        Assert.Contains("Remove-VmSubHost -Lost", second.Role.Snapshot().Store.LastError, StringComparison.Ordinal);
        Assert.False(second.Role.IsOver);
        // It can be told that the split is over all the same.
        var spec = _directory.ReadSpec()!;
        spec.Role = WorkerRole.Main;
        EndOfSplit.TryTell(
            spec, new Peer { Host = "sub", Address = "127.0.0.1", Port = (uint)_directory.ReadNumber(Markers.Ready), Thumbprint = _thumbprint }, _main, Pages, "over");
        second.WaitForEnd();
        Assert.True(second.Role.IsOver);
        Assert.False(Directory.Exists(Store));
    }

    [Fact]
    public void AWorkerThatIsStartedAgainWithItsStoreServesIt()
    {
        using (new Worker(_directory))
        {
        }

        using var second = new Worker(_directory);
        Connect(ConnectionPurpose.Bulk).Dispose();
        Assert.Equal("", second.Role.Snapshot().Store.LastError);
    }

    [Fact]
    public void AWorkerThatNobodyEverCameToEndsAndLeavesNothing()
    {
        Environment.SetEnvironmentVariable("FCTRANS_PATIENCE", "sub.first-contact=0.2");
        try
        {
            using var worker = new Worker(_directory);
            worker.WaitForEnd();
            Assert.True(worker.Role.IsOver);
            Assert.False(Directory.Exists(Store));
        }
        finally
        {
            Environment.SetEnvironmentVariable("FCTRANS_PATIENCE", null);
        }
    }

    [Fact]
    public void AWorkerThatSomebodyCameToWaitsForTheEnd()
    {
        Environment.SetEnvironmentVariable("FCTRANS_PATIENCE", "sub.first-contact=3");
        try
        {
            using var worker = new Worker(_directory);
            Connect(ConnectionPurpose.Bulk).Dispose();
            Assert.False(worker.EndsWithin(TimeSpan.FromSeconds(4)));
        }
        finally
        {
            Environment.SetEnvironmentVariable("FCTRANS_PATIENCE", null);
        }
    }

    private FrameConnection Connect(ConnectionPurpose purpose) => PeerConnector.Connect(
        IPAddress.Loopback, _directory.ReadNumber(Markers.Ready), _thumbprint, _main,
        new PeerHello(_directory.SplitId, WorkerRole.Main, purpose, Pages), TimeSpan.FromSeconds(10), tls: true, out _);

    /// <summary>A worker's role on a thread of its own, stopped as by SIGTERM.</summary>
    private sealed class Worker : IDisposable
    {
        private readonly CancellationTokenSource _stop = new();
        private readonly Task _run;

        public Worker(WorkerDirectory directory)
        {
            Role = new SubRole(directory.ReadSpec()!, directory);
            _run = Task.Run(() => Role.Run(port => directory.Mark(Markers.Ready, $"{port}"), _stop.Token));
            Assert.True(SpinWait.SpinUntil(() => directory.Has(Markers.Ready) || _run.IsCompleted, TimeSpan.FromSeconds(10)));
            Assert.False(_run.IsFaulted, _run.Exception?.ToString());
        }

        public SubRole Role { get; }

        public void WaitForEnd() => Assert.True(_run.Wait(TimeSpan.FromSeconds(20)));

        public bool EndsWithin(TimeSpan time) => _run.Wait(time);

        public void Dispose()
        {
            _stop.Cancel();
            WaitForEnd();
            Role.Dispose();
            _stop.Dispose();
        }
    }
}
