using System.Net;
using System.Text;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;
using Xunit;

namespace FCtrans.Unit.Tests.Migration;

public sealed class ControlChannelTests : IDisposable
{
    private const string SplitId = "0123456789abcdef0123456789abcdef";
    private const long Pages = 1024;

    private readonly string _directory = Directory.CreateDirectory($"/dev/shm/fctrans-control-{Guid.NewGuid():N}").FullName;
    private readonly GuestRam _ram;
    private readonly PackedPages _packed;
    private readonly PageTable _table = new(Pages);
    private readonly PageBitmap _pinned = new(Pages);
    private readonly Events _events = new();
    private readonly MigrationReceiver _receiver;

    public ControlChannelTests()
    {
        string path = Path.Combine(_directory, "ram");
        using (var file = File.Create(path))
        {
            file.SetLength(Pages * PageIndex.PageSize);
        }

        _ram = new GuestRam([new RamBlock("ram0", 0, Pages, default, SparseFile.Open(path, write: true), path)], []);
        _packed = PackedPages.Open(_directory, Pages);
        _receiver = new MigrationReceiver(_ram, _packed, _table, _pinned, 1, _events);
    }

    public void Dispose()
    {
        _ram.Dispose();
        _packed.Dispose();
        _table.Dispose();
        _pinned.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    /// <summary>Cut after each number of frames that may pass: all states of the switch-over come before and after a cut.</summary>
    [Fact]
    public void A_connection_cut_anywhere_comes_back_and_each_message_is_applied_once()
    {
        FrameConnection? current = null;
        using var listener = Listen((connection, _) =>
        {
            current = connection;
            _receiver.Serve(connection);
        });
        using var channel = Channel(listener);
        void Cut() => Volatile.Read(ref current)?.Abort();

        var sent = new StringBuilder();
        for (int i = 0; i < 20; i++)
        {
            string piece = $"piece {i};";
            sent.Append(piece);
            channel.SendLocated(new PageRange(i * 10, 5), 0, CancellationToken.None);
            channel.SendDeviceState(Encoding.ASCII.GetBytes(piece), last: false);
            if (i % 3 == 0)
            {
                Cut();
            }

            if (i % 5 == 0)
            {
                channel.Barrier(CancellationToken.None);
            }
        }

        channel.Send(ControlCode.TableComplete);
        Cut();
        channel.SendDeviceState(default, last: true);
        Cut();
        channel.WaitFor(ControlCode.Ready, CancellationToken.None);
        Cut();
        channel.Send(ControlCode.Commit);
        channel.WaitFor(ControlCode.Running, CancellationToken.None);

        Assert.True(channel.Reconnects >= 1);
        Assert.Equal(sent.ToString(), _events.DeviceStateText);
        Assert.Equal(1, _events.TablesCompleted);
        Assert.True(_events.Commits >= 1);
        for (long page = 0; page < 200; page++)
        {
            Assert.Equal(page % 10 < 5 ? PageState.Remote : PageState.Unused, _table[page].State);
        }
    }

    /// <summary>What is located page by page must not fill the source's memory when the main host is slow to apply it.</summary>
    [Fact]
    public void The_log_of_what_is_not_confirmed_stays_short_however_much_is_sent()
    {
        FrameConnection? first = null;
        using var listener = Listen((connection, _) =>
        {
            if (Interlocked.CompareExchange(ref first, connection, null) is not null)
            {
                _receiver.Serve(connection);
                return;
            }

            // Takes everything, and confirms nothing.
            byte[] buffer = new byte[FrameHeader.MaxPayloadBytes];
            while (connection.Read(out FrameHeader _, buffer))
            {
            }
        });
        using var channel = Channel(listener);
        const int messages = 3 * ControlChannel.MostUnconfirmed;
        var sending = new Thread(() =>
        {
            for (int i = 0; i < messages; i++)
            {
                channel.SendLocated(new PageRange(i % Pages, 1), 0, CancellationToken.None);
            }
        });
        sending.Start();
        Assert.True(SpinWait.SpinUntil(
            () => channel.Unconfirmed >= ControlChannel.MostUnconfirmed && sending.ThreadState.HasFlag(ThreadState.WaitSleepJoin), TimeSpan.FromSeconds(60)));
        using (var cancelled = new CancellationTokenSource())
        {
            cancelled.Cancel();
            Assert.Throws<OperationCanceledException>(() => channel.SendLocated(new PageRange(0, 1), 0, cancelled.Token));
        }

        Volatile.Read(ref first)!.Abort();
        Assert.True(sending.Join(TimeSpan.FromSeconds(60)));
        channel.Barrier(CancellationToken.None);
        Assert.Equal(0, channel.Unconfirmed);
        Assert.Equal(Pages, _table.Count(PageState.Remote));
    }

    [Fact]
    public void A_main_host_that_refuses_or_stays_away_fails_the_channel_once()
    {
        using var failed = new ManualResetEventSlim();
        using (var listener = Listen((connection, _) => throw connection.Refuse("no more")))
        using (var channel = Channel(listener))
        {
            channel.Failed = _ => failed.Set();
            var e = Assert.Throws<MigrationException>(() => channel.Barrier(CancellationToken.None));
            Assert.Contains("no more", e.Message, StringComparison.Ordinal);
            Assert.Equal(0, channel.Reconnects);
        }

        var gone = Listen((connection, _) => _receiver.Serve(connection));
        using var lonely = Channel(gone);
        lonely.Failed = _ => failed.Set();
        lonely.Patience = TimeSpan.Zero;
        gone.Dispose();
        Assert.Throws<MigrationException>(() => lonely.Barrier(CancellationToken.None));
        Assert.True(failed.Wait(TimeSpan.FromSeconds(30)));
    }

    private static ControlChannel Channel(PeerListener listener) => new((limit, cancel) => PeerConnector.Connect(
        IPAddress.Loopback, listener.Port, "", null,
        new PeerHello(SplitId, WorkerRole.Source, ConnectionPurpose.Control, Pages), limit, tls: false, out _, cancel));

    private static PeerListener Listen(Action<FrameConnection, PeerHello> serve)
    {
        var listener = new PeerListener(
            new PeerListenerOptions
            {
                Address = IPAddress.Loopback,
                Role = WorkerRole.Main,
                SplitId = SplitId,
                Pages = Pages,
                Certificate = null,
                Peers = new Dictionary<string, WorkerRole> { ["source"] = WorkerRole.Source },
            },
            serve);
        listener.Start();
        return listener;
    }

    private sealed class Events : IMigrationEvents
    {
        private readonly StringBuilder _deviceState = new();

        public string DeviceStateText => _deviceState.ToString();

        public int TablesCompleted { get; private set; }

        public int Commits { get; private set; }

        public void LeftAtSource(IPAddress address, int port)
        {
        }

        public void TableComplete() => TablesCompleted++;

        public void DeviceState(ReadOnlySpan<byte> piece, bool last) => _deviceState.Append(Encoding.ASCII.GetString(piece));

        public void Commit() => Commits++;

        public void Abort(string reason)
        {
        }
    }
}
