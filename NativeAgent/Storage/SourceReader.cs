using System.Net;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Storage;

/// <summary>How a sub-host reads what a switch-over left at the source. Any thread may open; a <see cref="Session"/> is one thread's.</summary>
/// <param name="connect">Opens a demand connection to the source at an address, which must prove to be the source; throws <see cref="IOException"/>.</param>
internal sealed unsafe class SourceReader(Func<IPEndPoint, FrameConnection> connect)
{
    /// <summary>The source answers, or is away: whoever waits for the pages it was asked for shall be told.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(5);

    public Session Open() => new(connect);

    /// <summary>Connects when it is first needed.</summary>
    internal sealed class Session(Func<IPEndPoint, FrameConnection> connect) : IDisposable
    {
        private FrameConnection? _connection;
        private IPEndPoint? _at;
        private uint _sequence;

        /// <summary>Reads pages: a byte for each that says whether the source has it, then the content of those that it has.</summary>
        /// <param name="range">At most <see cref="FrameHeader.MaxGetPages"/>.</param>
        /// <param name="buffer">At least <see cref="FrameHeader.MaxPayloadBytes"/>.</param>
        /// <exception cref="IOException">The source is away, or answers something else.</exception>
        public void Read(IPEndPoint at, PageRange range, byte* buffer)
        {
            if (_connection is null || !at.Equals(_at))
            {
                _connection?.Dispose();
                _connection = null;
                _connection = connect(at);
                _at = at;
            }

            var connection = _connection;
            using var patience = new Timer(static c => ((FrameConnection)c!).Abort(), connection, s_patience, Timeout.InfiniteTimeSpan);
            connection.Send(FrameHeader.Of(FrameType.Get, range, ++_sequence));
            connection.Flush();
            if (!connection.Read(out var answer, new Span<byte>(buffer, FrameHeader.MaxPayloadBytes)))
            {
                throw new IOException("The source's worker closed the connection.");
            }

            int count = (int)range.Count;
            var presence = new ReadOnlySpan<byte>(buffer, count);
            if (answer.Type != FrameType.GetDone || answer.Range != range || answer.Sequence != _sequence
                || presence.IndexOfAnyExcept((byte)0, (byte)1) >= 0
                || answer.PayloadBytes != count + (presence.Count((byte)1) * PageIndex.PageSize))
            {
                throw connection.Refuse($"The answer for {answer.Range} is not what was asked for.");
            }
        }

        public void Dispose() => _connection?.Dispose();
    }
}
