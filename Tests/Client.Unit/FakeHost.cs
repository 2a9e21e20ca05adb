using FCtrans.Contracts;
using Google.Protobuf;

namespace FCtrans.Client.Unit.Tests;

/// <summary>A host with a real sshd and, in place of the agent, a script that starts the fake one (Tests/FakeAgent).</summary>
public sealed class FakeHost : IDisposable
{
    private readonly SshServer _server = new();

    public FakeHost()
    {
        _server.Know();
        Package = AgentPackage.Load(WriteAgent("agent", ""), "0.0.1");
        Write("host.json", new HostInfo
        {
            HostName = Name,
            AgentVersion = "0.0.1",
            MemoryAvailableBytes = 8UL << 30,
            RamDirectoryFreeBytes = 8UL << 30,
            ConnectionAddress = "127.0.0.1",
        });
    }

    public SshServer Server => _server;

    public string Name => _server.Settings.Name!;

    public AgentPackage Package { get; }

    public string[] Calls => File.Exists(PathOf("calls")) ? File.ReadAllLines(PathOf("calls")) : [];

    /// <summary>Specifications of the workers that exist, whatever became of them.</summary>
    public WorkerSpec[] Workers => Directory.Exists(PathOf("workers"))
        ? [.. Directory.GetFiles(PathOf("workers")).Select(p => JsonParser.Default.Parse<WorkerSpec>(File.ReadAllText(p)))] : [];

    public string PathOf(string name) => _server.PathOf(name);

    public void Write(string name, IMessage message) => File.WriteAllText(PathOf(name), JsonFormatter.Default.Format(message));

    public void Fail(string method, string how) => File.WriteAllText(PathOf("fail-" + method), how);

    /// <summary>What the worker says next, a line each: a state, or "cut".</summary>
    public void Play(params object[] steps) => File.WriteAllLines(PathOf("watch"), steps.Select(s => s switch
    {
        MigrationStatus status => JsonFormatter.Default.Format(new WorkerStatus { Migration = status }),
        MigrationState state => JsonFormatter.Default.Format(new WorkerStatus { Migration = new MigrationStatus { State = state } }),
        _ => s.ToString()!,
    }));

    public string WriteAgent(string name, string extra)
    {
        string dll = Path.Combine(AppContext.BaseDirectory, "FCtrans.FakeAgent.dll");
        File.WriteAllText(PathOf(name), $"#!/bin/sh\n{extra}\nexec dotnet '{dll}' \"$@\"\n");
        return PathOf(name);
    }

    public Task<KvmHostConnection> ConnectAsync() => KvmHostConnection.OpenAsync(_server.Settings, Package, default);

    public void Dispose() => _server.Dispose();
}
