using System.Net.Sockets;
using System.Text;
using FCtrans.Agent.Hypervisor;
using Xunit;

namespace FCtrans.Unit.Tests.Hypervisor;

/// <summary>What a monitor may say beyond what QEMU says when all is well. Talking to a real one: Tests/Kernel.</summary>
public sealed class QemuMonitorTests
{
    private const string Greeting = """{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}""" + "\r\n";
    private const string Agreed = """{"return": {}, "id": 1}""" + "\n";
    private static readonly TimeSpan s_soon = TimeSpan.FromMilliseconds(300);

    [Fact]
    public void Events_and_late_answers_are_told_apart_from_the_answer()
    {
        using var server = new Server(Greeting + Agreed,
            """{"event": "RESUME", "timestamp": {}}""" + "\n" + """{"return": {"late": 1}, "id": 77}""" + "\r\n\r\n"
            + """{"return": {"status": "running", "running": true}, "id": 2}""" + "\n");
        using var monitor = server.Connect();
        Assert.Equal("7.2.22", monitor.QemuVersion);
        Assert.Equal(new VmRunState("running", true), monitor.QueryStatus());
        Assert.NotNull(monitor.WaitForEvent("RESUME", TimeSpan.Zero));
        Assert.Null(monitor.WaitForEvent("RESUME", TimeSpan.FromMilliseconds(1)));
    }

    [Fact]
    public void A_long_answer_in_many_pieces_is_one()
    {
        string text = new('x', 3 << 20);
        using var server = new Server(Greeting + Agreed, $$"""{"return": "{{text}}", "id": 2}""" + "\n");
        using var monitor = server.Connect();
        Assert.Equal(text.Length, monitor.HumanMonitor("info mtree -f").Length);
    }

    [Theory]
    [InlineData("not json\n", MonitorException.Protocol)]
    [InlineData("[1, 2]\n", MonitorException.Protocol)]
    [InlineData("{\"id\": 2}\n", MonitorException.Protocol)]
    [InlineData("{\"id\": 2, \"id\": 2, \"return\": {}}\n", MonitorException.Protocol)]
    [InlineData("{\"id\": 2, \"return\": 5}\n", MonitorException.Protocol)]
    [InlineData("{\"id\": 2, \"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n", "GenericError")]
    [InlineData("{\"id\": 2, \"error\": 7}\n", "")]
    [InlineData("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n", "GenericError")]
    [InlineData("{\"id\": \"2\", \"return\": {}}\n", MonitorException.Timeout)]
    [InlineData("\n\n\n", MonitorException.Timeout)]
    public void Answers_that_are_none(string answer, string errorClass)
    {
        using var server = new Server(Greeting + Agreed, answer);
        using var monitor = server.Connect();
        monitor.CommandTimeout = s_soon;
        Assert.Equal(errorClass, Assert.Throws<MonitorException>(() => monitor.QueryStatus()).ErrorClass);
    }

    [Fact]
    public void An_answer_nested_without_end_is_refused()
    {
        using var server = new Server(Greeting + Agreed, "{\"return\": " + new string('[', 100_000) + "\n");
        using var monitor = server.Connect();
        Assert.Equal(MonitorException.Protocol, Assert.Throws<MonitorException>(() => monitor.QueryStatus()).ErrorClass);
    }

    [Theory]
    [InlineData("SSH-2.0-OpenSSH_9.2\r\n", MonitorException.Protocol)]
    [InlineData("{\"return\": {}}\n", MonitorException.Protocol)]
    [InlineData("", MonitorException.Timeout)]
    public void What_is_no_monitor_is_told_at_once(string greeting, string errorClass)
    {
        using var server = new Server(greeting);
        Assert.Equal(
            errorClass, Assert.Throws<MonitorException>(() => QemuMonitor.Connect(server.Path, s_soon)).ErrorClass);
    }

    [Fact]
    public void A_monitor_that_goes_away_is_told()
    {
        using var server = new Server(Greeting + Agreed, null);
        using var monitor = server.Connect();
        Assert.Equal(MonitorException.Closed, Assert.Throws<MonitorException>(() => monitor.QueryStatus()).ErrorClass);
    }

    [Fact]
    public void A_path_too_long_for_a_socket_is_told()
        => Assert.Equal(
            MonitorException.Unreachable,
            Assert.Throws<MonitorException>(() => QemuMonitor.Connect("/" + new string('a', 200), s_soon)).ErrorClass);

    /// <summary>Says the first text at once and each further one after a line from the client; null: closes.</summary>
    private sealed class Server : IDisposable
    {
        private readonly string _directory = Directory.CreateTempSubdirectory("fctrans-qmp-").FullName;
        private readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        private readonly Thread _thread;

        public Server(string greeting, params string?[]? answers)
        {
            _listener.Bind(new UnixDomainSocketEndPoint(Path));
            _listener.Listen();
            _thread = new Thread(() => Serve(greeting, answers ?? [null]));
            _thread.Start();
        }

        public string Path => System.IO.Path.Combine(_directory, "qmp");

        public QemuMonitor Connect() => QemuMonitor.Connect(Path, TimeSpan.FromSeconds(10));

        public void Dispose()
        {
            _listener.Dispose();
            _thread.Join();
            Directory.Delete(_directory, recursive: true);
        }

        private void Serve(string greeting, string?[] answers)
        {
            try
            {
                using var client = _listener.Accept();
                using var stream = new NetworkStream(client);
                using var reader = new StreamReader(stream);
                stream.Write(Encoding.UTF8.GetBytes(greeting));

                // qmp_capabilities: its answer came with the greeting.
                reader.ReadLine();
                foreach (string? answer in answers)
                {
                    reader.ReadLine();
                    if (answer is null)
                    {
                        return;
                    }

                    stream.Write(Encoding.UTF8.GetBytes(answer));
                }

                reader.ReadLine();
            }
            catch (Exception e) when (e is IOException or SocketException or ObjectDisposedException)
            {
                // The test has seen enough.
            }
        }
    }
}
