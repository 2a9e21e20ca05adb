using System.Net;
using FCtrans.Agent.Migration;

namespace FCtrans.Unit.Tests.Migration;

/// <summary>For a receiver that gets pages, and nothing that makes anything happen.</summary>
internal sealed class NoEvents : IMigrationEvents
{
    public void LeftAtSource(IPAddress address, int port) => throw new NotSupportedException();

    public void TableComplete() => throw new NotSupportedException();

    public void DeviceState(ReadOnlySpan<byte> piece, bool last) => throw new NotSupportedException();

    public void Commit() => throw new NotSupportedException();

    public void Abort(string reason) => throw new NotSupportedException();
}
